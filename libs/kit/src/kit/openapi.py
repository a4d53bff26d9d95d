"""What the OpenAPI document of a service says of all operations: the errors, and the token."""

from typing import Any

from fastapi import FastAPI

from kit.problems import MEDIA_TYPE, ProblemBody

NO_TOKEN: dict[str, Any] = {"security": []}  # `openapi_extra` of an operation that anybody may call
_PROBLEM = {"schema": {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"content": {MEDIA_TYPE: _PROBLEM}, "description": "problem+json"} for code in ("4XX", "5XX", 422)
}


class Documented(FastAPI):
    """An application whose operations take a token, but for those with `NO_TOKEN`."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document["security"] = [{"bearer": []}]
            components = document.setdefault("components", {})
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
            components.setdefault("schemas", {})[ProblemBody.__name__] = ProblemBody.model_json_schema()
        return super().openapi()
