"""Where an alias pointed at any time, and who let it; and models that are asked for by a former name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from joserfc.jwk import OKPKey

from audit import tables, view_tables
from audit.domain import NOT_VERIFIED
from contracts.approval import Verdict
from contracts.envelope import Envelope
from contracts.lifecycle import DEFAULT_LIFECYCLE, TransitionKind
from contracts.registry import AliasChanged, AliasRemoved, ModelRegistered, ModelRenamed, WorkspaceConfigured

from .conftest import APPROVED, Harness, changed, digest, event, hours, record, registered
from .signed import DEV, STAGING, Signed, decided

PROTECTED = WorkspaceConfigured(workspace="default", lifecycle=DEFAULT_LIFECYCLE, protected_aliases=("champion",))


def alias(version: int, previous: int | None = None, name: str = "champion", **more: Any) -> AliasChanged:
    given: dict[str, Any] = {"requested_by": "ana", "reason": f"{name} is v{version}", **more}
    return AliasChanged(
        workspace="default",
        model="fraud",
        alias=name,
        version=version,
        digest=digest(version),
        artifact_digest=digest(version),
        previous=previous,
        **given,
    )


def asked(version: int, previous: int | None = None, **more: Any) -> AliasChanged:
    """A move of the protected alias, before the decision."""
    return alias(version, previous, transition_id=f"t-{version}-champion", **{**APPROVED, **more})


def removed(previous: int) -> AliasRemoved:
    return AliasRemoved(
        workspace="default", model="fraud", alias="champion", previous=previous, requested_by="olga", reason="drift"
    )


def renamed(former: str, name: str, model: str = "fraud") -> ModelRenamed:
    return ModelRenamed(workspace="default", model=model, former=former, name=name)


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


def story(signed: Signed) -> list[Envelope]:
    """champion is v1 at 2 h, v2 at 4 h, gone at 6 h; shadow is v2 from 3 h on."""
    return [
        event(PROTECTED, 1, at=hours(0)),
        event(registered(1), 1, at=hours(1)),
        event(decided(asked(1), signed.key), 2, at=hours(2)),
        event(registered(2), 3, at=hours(2.5)),
        event(alias(2, name="shadow"), 4, at=hours(3)),
        event(decided(asked(2, 1), signed.key), 5, at=hours(4)),
        event(removed(2), 6, at=hours(6)),
    ]


async def pointed(audit: Harness, at: float, name: str = "champion", model: str = "fraud") -> Any:
    return await audit.get(f"/v1/models/{model}/aliases/{name}?at={quote(hours(at).isoformat())}")


async def assert_story(signed: Signed) -> None:
    nothing = await pointed(signed.audit, 1.9)
    assert (nothing["version"], nothing["since"], nothing["index"], nothing["approved_by"]) == (None, None, None, [])
    first = await pointed(signed.audit, 2)
    assert (first["alias"], first["version"], first["previous"], first["digest"]) == ("champion", 1, None, digest(1))
    assert (first["requested_by"], first["reason"], first["policy"]) == ("ana", "champion is v1", "none")
    assert [a["name"] for a in first["approved_by"]] == ["ben"]
    assert [c["gate"] for c in first["criteria"]] == ["accuracy"]
    assert (first["decision_id"], first["transition_id"]) == ("d-t-1-champion", "t-1-champion")
    assert [first[end][11:16] for end in ("since", "until")] == ["14:00", "16:00"]
    second = await pointed(signed.audit, 4)
    assert (second["version"], second["previous"]) == (2, 1)
    assert first["closed_by"] == second["index"]
    gone = await pointed(signed.audit, 100)
    assert (gone["version"], gone["previous"], gone["requested_by"], gone["reason"]) == (None, 2, "olga", "drift")
    assert (gone["until"], gone["digest"]) == (None, None)
    assert [(await pointed(signed.audit, at, "shadow"))["version"] for at in (2.9, 3, 100)] == [None, 2, 2]
    assert (await pointed(signed.audit, 5, model="other"))["version"] is None


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
async def test_aliases_in_time_whatever_the_order(signed: Signed, seed: int | None) -> None:
    envelopes = story(signed)
    if seed is not None:
        random.Random(seed).shuffle(envelopes)
    await signed.tell(*envelopes)
    await assert_story(signed)
    assert [row["problem"] for row in await signed.audit.rows(view_tables.timeline)] == [None] * len(envelopes)
    assert await signed.audit.rows(tables.mechanism.early) == []
    await signed.assert_rebuilt_alike()


FORGED: dict[str, Callable[[AliasChanged, OKPKey], AliasChanged]] = {
    "no decision": lambda change, key: change,
    "not a JWS": lambda change, key: change.model_copy(update={"decision": "x.y.z"}),
    "another key": lambda change, key: decided(change, OKPKey.generate_key("Ed25519", {"kid": str(key.kid)})),
    "a rejection": lambda change, key: decided(change, key, verdict=Verdict.REJECTED),
    "of another version": lambda change, key: decided(change, key, version=1),
    "of another artifact": lambda change, key: decided(change, key, artifact_digest=digest(9)),
    "of another alias": lambda change, key: decided(change, key, to_stage="@shadow"),
    "of a stage": lambda change, key: decided(change, key, to_stage="champion"),
    "of another kind": lambda change, key: decided(change, key, kind="promotion"),
    "of another requester": lambda change, key: decided(change, key, requested_by="eve"),
}


@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_move_of_a_protected_alias_points_nowhere(signed: Signed, how: str) -> None:
    *before, true, _ = story(signed)
    await signed.tell(*before)
    forged = event(FORGED[how](asked(2, 1), signed.key), 5, at=hours(3.5))
    assert await signed.tell(forged) == [NOT_VERIFIED]
    assert (await pointed(signed.audit, 100))["version"] == 1
    assert await signed.tell(true) == [None]
    assert (await pointed(signed.audit, 100))["version"] == 2
    await signed.assert_rebuilt_alike()


async def test_a_decision_for_an_alias_is_good_once_and_for_no_stage(signed: Signed) -> None:
    told = story(signed)
    await signed.tell(*told[:-1])
    again = told[2].model_copy(update={"id": str(uuid4()), "sequence": 6, "time": hours(7)})
    assert await signed.tell(again) == [None]
    assert (await pointed(signed.audit, 100))["version"] == 2
    move = decided(changed(2, DEV, STAGING), signed.key, kind=TransitionKind.ALIAS, to_stage="@champion")
    stage = event(move.model_copy(update={"to_stage": "@champion", "kind": TransitionKind.ALIAS}), 7, at=hours(8))
    assert await signed.tell(stage) == ["astray"]
    development = await signed.audit.get("/v1/models/fraud/production?stage=development")
    assert [o["version"] for o in development["occupants"]] == [2, 1]


async def test_an_alias_is_judged_again_when_its_protection_turns_out(signed: Signed) -> None:
    rules, *rest = story(signed)
    undecided = event(alias(1, 2), 6, at=hours(5))
    assert await signed.tell(*rest[:-1], undecided) == [None] * 6
    assert (await pointed(signed.audit, 100))["version"] == 1
    await signed.tell(rules)
    assert (await pointed(signed.audit, 100))["version"] == 2
    page = await signed.audit.get("/v1/timeline?model=fraud&type=hallmark.alias.changed.v1")
    assert [bool(item["problem"]) for item in page["items"]] == [False, False, False, True]
    assert "champion is protected" in page["items"][-1]["summary"]
    await signed.assert_rebuilt_alike()
    # Once the protection is over, it may.
    await signed.tell(event(PROTECTED.model_copy(update={"protected_aliases": ()}), 2, at=hours(4.5)))
    assert (await pointed(signed.audit, 100))["version"] == 1
    await signed.assert_rebuilt_alike()


def named(signed: Signed) -> list[Envelope]:
    """fraud becomes scam, then swindle; other stays itself."""
    first = ModelRegistered(workspace="default", model="fraud")
    other = ModelRegistered(workspace="default", model="other")
    return [
        event(first, 1, at=hours(0)),
        event(registered(1), 2, at=hours(1)),
        event(decided(asked(1), signed.key), 3, at=hours(2)),
        event(renamed("fraud", "scam"), 4, at=hours(3)),
        event(decided(changed(1, DEV, STAGING), signed.key), 5, at=hours(4)),
        event(renamed("scam", "swindle"), 6, at=hours(5)),
        event(other, 1, at=hours(6)),
    ]


@pytest.mark.parametrize("seed", [0, 1])
async def test_any_name_that_a_model_ever_had_leads_to_it(signed: Signed, seed: int) -> None:
    envelopes = named(signed)
    random.Random(seed).shuffle(envelopes)
    await signed.tell(*envelopes)
    for name in ("fraud", "scam", "swindle"):
        staging = await signed.audit.get(f"/v1/models/{name}/production?stage=staging")
        assert (staging["model"], staging["version"]) == ("fraud", 1)
        assert (await pointed(signed.audit, 3, model=name))["version"] == 1
        for workspace in ("default", "*"):
            page = await signed.audit.get(f"/v1/timeline?model={name}&workspace={workspace}")
            assert [item["sequence"] for item in page["items"]] == [1, 2, 3, 4, 5, 6]
    assert len((await signed.audit.get("/v1/timeline?model=other"))["items"]) == 1
    assert (await signed.audit.get("/v1/timeline?model=unheard"))["items"] == []
    await signed.assert_rebuilt_alike()


async def test_a_name_that_somebody_registered_cannot_be_renamed_away(signed: Signed) -> None:
    await signed.tell(*named(signed))
    await signed.tell(event(renamed("other", "fraud", model="other"), 2), event(renamed("fraud", "scam", "other"), 3))
    for name in ("fraud", "scam"):
        assert (await signed.audit.get(f"/v1/models/{name}/production?stage=Staging"))["model"] == "fraud"


async def test_who_may_read_is_decided_by_the_identity(signed: Signed) -> None:
    await signed.tell(*named(signed))
    for path in ("models/scam/aliases/champion", "models/scam/production", "timeline?model=scam"):
        assert await signed.audit.status(f"/v1/{path}", "nobody") == 403
        assert await signed.audit.status(f"/v1/{path}", "local-auditors") == 200


async def test_without_keys_aliases_are_told_too(audit: Harness) -> None:
    moves = [event(registered(1), 1), event(alias(1), 2, at=hours(1)), event(removed(1), 3, at=hours(2))]
    await audit.ledger.append([record(e) for e in moves])
    assert [(await pointed(audit, at))["version"] for at in (0.5, 1, 2)] == [None, 1, None]
