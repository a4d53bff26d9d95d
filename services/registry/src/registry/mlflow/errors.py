"""Errors as MLflow's clients read them: `{"error_code", "message"}` with MLflow's status for the code."""

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from kit.problems import Problem

INVALID = "INVALID_PARAMETER_VALUE"
MISSING = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
CONFLICT = "RESOURCE_CONFLICT"
DENIED = "PERMISSION_DENIED"
UNAUTHENTICATED = "UNAUTHENTICATED"
STATUS = {INVALID: 400, MISSING: 404, EXISTS: 400, CONFLICT: 409, DENIED: 403, UNAUTHENTICATED: 401}
OF_STATUS = {401: UNAUTHENTICATED, 403: DENIED, 404: MISSING, 409: CONFLICT, 410: MISSING}


class Refusal(Exception):
    """An error under one of MLflow's own codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def of_problem(problem: Problem) -> Refusal:
    return Refusal(OF_STATUS.get(problem.status, INVALID), problem.detail)


def of_validation(error: ValidationError) -> Refusal:
    """What our own rules say of a value that MLflow's would take."""
    said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return Refusal(INVALID, f"Invalid value: {said}")


def render(refusal: Refusal) -> JSONResponse:
    headers = {"WWW-Authenticate": 'Basic realm="hallmark", Bearer'} if refusal.code == UNAUTHENTICATED else None
    body = {"error_code": refusal.code, "message": refusal.message}
    return JSONResponse(body, status_code=STATUS[refusal.code], headers=headers)


def no_model(name: str) -> Refusal:
    return Refusal(MISSING, f"Registered Model with name={name} not found")


def no_version(name: str, version: int) -> Refusal:
    return Refusal(MISSING, f"Model Version (name={name}, version={version}) not found")


def model_exists(name: str, problem: Problem) -> Refusal:
    return Refusal(EXISTS, f"Registered Model (name={name}) already exists. Error: {problem.detail}")
