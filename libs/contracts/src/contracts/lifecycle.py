"""Stages and names that every service means the same way."""

from enum import StrEnum


class Stage(StrEnum):
    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


class TransitionKind(StrEnum):
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    RETIREMENT = "retirement"
    SUPERSEDED = "superseded"


def stream_of(workspace: str, model: str) -> str:
    """The stream, and the Kafka key, of everything that happens to one model."""
    return f"{workspace}/{model}"


def subject_of(workspace: str, model: str, version: int | None = None) -> str:
    """The CloudEvents subject: `workspace/model` or `workspace/model/version`."""
    return stream_of(workspace, model) + (f"/{version}" if version is not None else "")


def parse_subject(subject: str) -> tuple[str, str, int | None]:
    """The parts of a subject.

    Raises:
        ValueError: it has another shape.
    """
    parts = subject.split("/")
    if len(parts) == 2:
        return parts[0], parts[1], None
    if len(parts) == 3 and parts[2].isdecimal():
        return parts[0], parts[1], int(parts[2])
    raise ValueError(f"subject {subject!r} is not workspace/model or workspace/model/version")
