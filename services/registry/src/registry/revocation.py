"""Revocations: a version that nobody may use any more, and what takes its place. Pure, like `stages.py`."""

from contracts.approval import Revocation
from contracts.lifecycle import TransitionKind
from contracts.registry import StageChanged, StageRefused, StageRequested, VersionRevoked
from registry.domain import Model, Refused, Status, Version
from registry.stages import REVOKED, Asked, Open, alias_of, ended, requested, transition_of

LONGEST_REASON = 2_000


def decide_revoke(model: Model, version: Version, revocation: Revocation, jws: str) -> list[VersionRevoked]:
    """Nothing for a version that is revoked already: the first word counts, and there is no way back.

    Raises:
        Refused: the revocation is for another model or version, or for other bytes.
    """
    wanted = {
        "workspace": model.workspace,
        "model": model.name,
        "version": version.number,
        "digest": version.digest,
        "artifact_digest": version.artifact_digest,
    }
    for name, want in wanted.items():
        if (got := getattr(revocation, name)) != want:
            raise Refused("revocation-mismatch", f"the revocation is for {name}={got}, the version has {name}={want}")
    if version.status == Status.REVOKED:
        return []
    return [
        VersionRevoked(
            workspace=model.workspace,
            model=model.name,
            version=version.number,
            digest=version.digest,
            revoked_by=revocation.revoked_by,
            reason=revocation.reason,
            fallback=revocation.fallback,
            revocation=jws,
        )
    ]


def decide_close(waiting: Open, revoked: VersionRevoked) -> StageRefused:
    """An open transition of a version that was revoked."""
    return ended(waiting, REVOKED, f"{revoked.revoked_by} revoked version {revoked.version}: {revoked.reason}")


def may_take_over(model: Model, version: Version, target: str, pointed_at: tuple[int, ...] = ()) -> bool:
    """Whether the version may take the place of a revoked one: it was in the stage, or the alias `pointed_at` it."""
    if version.status != Status.READY or version.deleted:
        return False
    if alias_of(target) is not None:
        return version.number in pointed_at
    return version.stage == model.rules.lifecycle.archive and target in version.has_been


def decide_return(model: Model, target: str, back_to: Version, revoked: Version, asked: Asked) -> StageRequested:
    """The registry asks for the way back, as people do: a gated stage or protected alias changes by decision only."""
    transition = transition_of(model, back_to, TransitionKind.ROLLBACK, target, asked.transition_id)
    expected = revoked.number if alias_of(target) is not None else None
    return requested(transition, asked, _why(revoked), expected)


def decide_leave(model: Model, revoked: Version, asked: Asked) -> StageChanged:
    """Nothing takes its place: it leaves for the archive, which needs no decision."""
    archive = model.rules.lifecycle.archive
    transition = transition_of(model, revoked, TransitionKind.RETIREMENT, archive, asked.transition_id)
    return StageChanged(**transition.model_dump(), requested_by=asked.actor, reason=_why(revoked))


def _why(version: Version) -> str:
    said = f"{version.revoked.by} revoked it: {version.revoked.reason}" if version.revoked else "it was revoked"
    return f"version {version.number} must not be used; {said}"[:LONGEST_REASON]
