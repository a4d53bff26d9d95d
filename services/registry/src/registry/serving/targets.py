"""What a server can follow: a stage, an alias, or one version."""

from dataclasses import dataclass
from typing import Literal

from contracts.lifecycle import DEFAULT_LIFECYCLE
from kit.problems import Problem

DEFAULT_LIFECYCLE_JSON = DEFAULT_LIFECYCLE.model_dump_json()
Kind = Literal["stage", "alias", "version"]


@dataclass(frozen=True)
class Target:
    kind: Kind
    name: str

    @classmethod
    def of(cls, stage: str | None, alias: str | None, version: int | None = None) -> "Target | None":
        """None when nothing is named.

        Raises:
            Problem: 422, more than one is named.
        """
        kinds: tuple[tuple[Kind, str | int | None], ...] = (("stage", stage), ("alias", alias), ("version", version))
        named = [cls(kind, str(value)) for kind, value in kinds if value is not None]
        if len(named) > 1:
            raise Problem(422, "invalid-request", "name one of stage, alias and version, such as stage=Production")
        return named[0] if named else None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target of a transition: `Production` or `@champion`."""
        return cls("alias", text[1:]) if text.startswith("@") else cls("stage", text)

    def __str__(self) -> str:
        return {"stage": self.name, "alias": f"@{self.name}", "version": f"version:{self.name}"}[self.kind]


def deleted(model: str) -> Problem:
    return Problem(410, "model-deleted", f"{model} is deleted; restore it first")


def unknown_stage(name: str) -> Problem:
    return Problem(422, "unknown-stage", f"{name!r} is not a stage of this workspace")
