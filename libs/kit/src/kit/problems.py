"""Errors over HTTP: problem+json (RFC 9457) with a stable `type`."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from kit.errors import Permanent, is_transient

log = structlog.get_logger()
TYPE_PREFIX = "urn:hallmark:problem:"
MEDIA_TYPE = "application/problem+json"


class ProblemBody(BaseModel):
    """The body of every error."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None


class Problem(Permanent):
    """An error with an HTTP status. Over Kafka the same error parks the record: `code` and `detail` are shared."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(code, detail)
        self.status = status
        self.extra = extra


def render(request: Request, status: int, code: str, detail: str, **extra: Any) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "1"} if status == 503 else None
    body = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", None),
        **extra,
    }
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Turns every error of the application into a problem, once, here."""

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return render(request, error.status, error.code, error.detail, **error.extra)

    @app.exception_handler(Permanent)
    async def permanent(request: Request, error: Permanent) -> JSONResponse:
        return render(request, 422, error.code, error.detail)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input: it may hold a secret, and NaN could not be written as JSON.
        fields = [{"field": ".".join(str(p) for p in e["loc"]), "message": e["msg"]} for e in error.errors()]
        detail = "; ".join(f"{f['field']}: {f['message']}" for f in fields)
        return render(request, 422, "invalid-request", detail, errors=fields)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        known = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed"}
        code = known.get(error.status_code, "http-error")
        return render(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        if is_transient(error):
            log.warning("dependency away", error=repr(error), path=request.url.path)
            return render(request, 503, "unavailable", "a part the service needs is away; try again")
        log.error("unexpected error", exc_info=error, path=request.url.path)
        return render(request, 500, "internal-error", "an unexpected error; quote the request id when you report it")
