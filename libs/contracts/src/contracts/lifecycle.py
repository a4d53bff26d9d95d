"""Stages and names that every service means the same way."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from contracts.payload import Payload, StageName

REGISTRY = "hallmark/registry"  # who asks when the registry itself does


class Stage(StrEnum):
    """The stages of the default lifecycle; a workspace may have others."""

    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


class TransitionKind(StrEnum):
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    RETIREMENT = "retirement"
    SUPERSEDED = "superseded"
    ALIAS = "alias"


class StageRule(Payload):
    """One stage. `gated`: entered only by a signed decision. `holds`: how many versions of a model at once (None: any
    number); one more pushes the longest-standing one out into the lifecycle's `archive`."""

    name: StageName
    gated: bool = False
    holds: Annotated[int, Field(ge=1, le=1_000)] | None = None


class Move(Payload):
    """A way from one stage to another that anybody may ask for."""

    origin: StageName
    to: StageName


class Lifecycle(Payload):
    """The stages of a workspace and the moves between them. New versions start in `initial`.

    `open_moves` allows every move between stages; the gates stay. A rollback needs no move: it returns to a gated
    stage what has been there before.
    """

    stages: Annotated[tuple[StageRule, ...], Field(min_length=1, max_length=50)]
    moves: Annotated[tuple[Move, ...], Field(max_length=2_500)] = ()
    initial: StageName
    archive: StageName
    open_moves: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two stages have the same name")
        named = [self.initial, self.archive, *(end for move in self.moves for end in (move.origin, move.to))]
        unknown = sorted(set(named) - set(names))
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of the stages {', '.join(names)}")
        for name, role in ((self.initial, "initial"), (self.archive, "archive")):
            rule = self.rule(name)
            assert rule is not None
            if rule.gated or rule.holds is not None:
                raise ValueError(f"the {role} stage {name} must be open to any number of versions, without a gate")
        return self

    def rule(self, name: str) -> StageRule | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def named(self, text: str) -> str | None:
        """The stage of that name, in the lifecycle's own spelling; capitals do not matter."""
        return next((stage.name for stage in self.stages if stage.name.lower() == text.lower()), None)

    def allows(self, origin: str, to: str) -> bool:
        return self.open_moves or any(move.origin == origin and move.to == to for move in self.moves)

    def gated(self, name: str) -> bool:
        rule = self.rule(name)
        return rule is not None and rule.gated


def _moves(*pairs: tuple[Stage, Stage]) -> tuple[Move, ...]:
    return tuple(Move(origin=origin, to=to) for origin, to in pairs)


DEFAULT_LIFECYCLE = Lifecycle(
    stages=(
        StageRule(name=Stage.DEVELOPMENT),
        StageRule(name=Stage.STAGING, gated=True),
        StageRule(name=Stage.PRODUCTION, gated=True, holds=1),
        StageRule(name=Stage.ARCHIVED),
    ),
    moves=_moves(
        (Stage.DEVELOPMENT, Stage.STAGING),
        (Stage.STAGING, Stage.PRODUCTION),
        (Stage.STAGING, Stage.DEVELOPMENT),
        (Stage.DEVELOPMENT, Stage.ARCHIVED),
        (Stage.STAGING, Stage.ARCHIVED),
        (Stage.PRODUCTION, Stage.ARCHIVED),
        (Stage.ARCHIVED, Stage.DEVELOPMENT),
    ),
    initial=Stage.DEVELOPMENT,
    archive=Stage.ARCHIVED,
)


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
