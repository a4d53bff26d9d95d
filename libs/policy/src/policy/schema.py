"""The JSON Schema of policies, for editors and other tools. It tells the form; `parse` also checks what fields say
together, and that expressions can be evaluated."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from policy.spec import PolicyDocument

ID = "promotion-policy.schema.json"


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a document of `kind: PromotionPolicy`."""
    schema = PolicyDocument.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": ID, **schema, "title": "PromotionPolicy"}
