"""Forged records of the registry: whoever can write to its topic cannot rewrite what was in production."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc.jwk import OKPKey
from tests.support.decisions import revocation

from approval.decision import sign
from audit import app as audit_app
from audit import tables, view_tables
from audit.decisions import Decisions
from audit.domain import NOT_VERIFIED, Flaw
from audit.rebuild import rebuild
from audit.views import Views, views_of
from contracts.approval import Choice, PolicyRef, RequestDecided, RevocationOrdered, Verdict
from contracts.lifecycle import TransitionKind
from contracts.payload import Message
from contracts.registry import Approval, Criterion, StageChanged, StageRefused
from kit.auth import KeySource
from kit.errors import Transient
from kit.keys import ensure_key, load_key

from .conftest import NOON, Harness, changed, digest, event, hours, record, registered
from .signed import DEV, PRODUCTION, STAGING, Signed, decided
from .test_reports import decided_by, said, vote


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


async def test_decided_changes_are_believed(signed: Signed) -> None:
    assert await signed.tell(*signed.first()) == [None] * 5
    assert await signed.production() == 1
    assert await signed.tell(*signed.swap()) == [None] * 2
    rows = {row["index"]: row for row in await signed.intervals()}
    assert (rows[6]["version"], rows[6]["stage"], rows[6]["until"]) == (2, "Production", None)
    assert (rows[5]["version"], rows[5]["stage"], rows[5]["superseded_by"]) == (1, "Archived", 2)
    assert (rows[2]["until"], rows[2]["closed_by"]) == (hours(5), 5)
    async with signed.audit.db.transaction() as tx:
        await rebuild(tx, signed.views)
    assert {row["index"]: row for row in await signed.intervals()} == rows


FORGED: dict[str, Callable[[StageChanged, OKPKey], StageChanged]] = {
    "no decision": lambda change, key: change,
    "a header that is no object": lambda change, key: change.model_copy(
        update={"decision": "WyJhbGciXQ.e30.AA", "decision_id": "d"}
    ),
    "a revocation": lambda change, key: change.model_copy(
        update={"decision": sign(revocation(), key), "decision_id": "d"}
    ),
    "not a JWS": lambda change, key: change.model_copy(update={"decision": "x.y.z", "decision_id": "d"}),
    "another key": lambda change, key: decided(change, OKPKey.generate_key("Ed25519", {"kid": "strange"})),
    "another key of that name": lambda change, key: decided(
        change, OKPKey.generate_key("Ed25519", {"kid": str(key.kid)})
    ),
    "a rejection": lambda change, key: decided(change, key, verdict=Verdict.REJECTED),
    "of another version": lambda change, key: decided(change, key, version=1),
    "of another artifact": lambda change, key: decided(change, key, digest=digest(9)),
    "of another stage": lambda change, key: decided(change, key, to_stage=STAGING),
    "of another transition": lambda change, key: decided(change, key, transition_id="t"),
    "a kind that needs none": lambda change, key: change.model_copy(update={"kind": TransitionKind.RETIREMENT}),
    "superseded, it says": lambda change, key: change.model_copy(update={"kind": TransitionKind.SUPERSEDED}),
}


@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_change_is_logged_and_moves_nothing(signed: Signed, how: str) -> None:
    await signed.tell(*signed.first())
    before = await signed.intervals()
    forged = FORGED[how](changed(2, STAGING, PRODUCTION, replaces=1), signed.key)
    assert await signed.tell(event(forged, 6, at=hours(4.5))) == [NOT_VERIFIED]
    assert await signed.intervals() == before
    timeline = await signed.audit.get("/v1/timeline?model=fraud&version=2")
    assert timeline["items"][-1]["problem"].startswith(f"{NOT_VERIFIED}: ")
    assert (await signed.audit.rows(tables.finding))[-1]["code"] == NOT_VERIFIED
    # And it has not taken the place of the true ones, now or after a rebuild.
    assert await signed.tell(*signed.swap()) == [None, None]
    assert await signed.production() == 2
    after = await signed.intervals()
    async with signed.audit.db.transaction() as tx:
        await rebuild(tx, signed.views)
    assert await signed.intervals() == after


async def test_a_forged_removal_waits_for_a_decision_that_never_comes(signed: Signed) -> None:
    await signed.tell(*signed.first())
    leaving, entering = signed.swap()
    await signed.tell(leaving.model_copy(update={"id": str(uuid4())}))
    assert await signed.production() == 1
    # The true pair comes when its first place is taken; the decided change is believed all the same.
    await signed.tell(leaving, entering)
    assert await signed.production() == 2
    assert [(r["version"], r["stage"]) for r in await signed.intervals() if r["until"] is r["known_until"] is None] == [
        (1, "Archived"),
        (2, "Production"),
    ]


async def test_a_place_taken_by_a_forged_event_does_not_lose_the_decided_change(signed: Signed) -> None:
    await signed.tell(*signed.first())
    leaving, entering = signed.swap()
    noise = [event(registered(n), n, at=hours(4.5)) for n in (6, 7)]
    await signed.tell(*noise, leaving, entering)
    assert await signed.production() == 2


async def test_a_forger_who_takes_the_id_of_a_decided_change_hides_nothing(signed: Signed) -> None:
    await signed.tell(*signed.first())
    leaving, entering = signed.swap()
    taken = entering.model_copy(update={"actor": "eve", "value": signed.first()[3].value, "sequence": 9})
    assert await signed.tell(taken, leaving, entering, entering) == ["bad-event", None, "id-used-twice", None]
    rows = await signed.audit.rows(view_tables.timeline)
    assert [row["copy_of"] for row in rows[5:]] == [None, None, None, 7]
    assert await signed.production() == 2
    await signed.assert_rebuilt_alike()


async def test_a_decision_is_good_once(signed: Signed) -> None:
    told = [*signed.first(), *signed.swap()]
    await signed.tell(*told)
    again = told[2].model_copy(update={"id": str(uuid4()), "sequence": 8, "time": hours(6)})
    await signed.tell(again, event(registered(2), 9, at=hours(7)))
    assert await signed.production() == 2


async def test_without_keys_nothing_is_read_yet_and_nothing_is_missing(signed: Signed) -> None:
    """The log does not wait for keys; what stands in it is judged once they are there."""
    aside = signed.jwks.rename(signed.jwks.with_suffix(".aside"))
    staging = signed.first()[:2]
    with pytest.raises(Transient, match="cannot read keys"):
        await signed.tell(*staging)
    assert len(await signed.audit.entries()) == 2
    assert await signed.audit.rows(view_tables.timeline) == []
    aside.rename(signed.jwks)
    await signed.ledger.projector.catch_up()
    assert [row["problem"] for row in await signed.audit.rows(view_tables.timeline)] == [None, None]


async def test_a_rebuild_believes_what_was_believed_and_looks_again_at_the_rest(signed: Signed, tmp_path: Path) -> None:
    ensure_key(tmp_path / "new", "decision")
    new = load_key(tmp_path / "new" / "decision.jwk")
    late = event(decided(changed(2, STAGING, PRODUCTION, replaces=1), new), 7, at=hours(5))
    await signed.tell(*signed.first(), signed.swap()[0])
    assert await signed.tell(late) == [NOT_VERIFIED]

    for decisions, version in (
        (None, None),  # without keys the removal of v1 is believed, but nothing that did not verify once
        (Decisions(KeySource(str(tmp_path / "new" / "decision.jwks.json"))), 2),
    ):
        async with signed.audit.db.transaction() as tx:
            await rebuild(tx, Views(decisions))
        assert await signed.production() == version


@pytest.mark.parametrize("code", [NOT_VERIFIED, "view-failed"])
async def test_a_rebuild_believes_no_forged_change_that_a_view_failed_on_or_the_store_had_lost(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """With keys and without: their signatures were never found to be good. Older findings only say `view-failed`."""
    if code != NOT_VERIFIED:
        monkeypatch.setattr("audit.views._failed", lambda reading, _: replace(reading, flaw=Flaw(code, "a bug")))
    await signed.tell(*signed.first())
    forged = changed(2, STAGING, PRODUCTION, replaces=1)
    forged = forged.model_copy(update={"decision": "x.y.z", "decision_id": "d"})
    one = Views._one

    async def broken(self: Views, page: Any, item: Any) -> Any:
        if item.index == 5:
            raise ZeroDivisionError("a bug")
        return await one(self, page, item)

    async def lost(self: Views, data: bytes) -> Any:
        raise ValueError("the store has lost it")

    for patched, method, sequence in (("_one", broken, 6), ("leaf", lost, 7)):
        with monkeypatch.context() as patch:
            patch.setattr(Views, patched, method)
            await signed.tell(event(forged, sequence, at=hours(4 + sequence / 10)))
    first, second = await signed.audit.rows(tables.finding)
    assert (first["index"], first["code"], second["code"]) == (5, code, "leaf-lost")
    assert first["detail"].endswith("a bug" if code != NOT_VERIFIED else "view-failed: ZeroDivisionError('a bug')")
    for views in (signed.views, Views()):
        async with signed.audit.db.transaction() as tx:
            await rebuild(tx, views)
        assert await signed.production() == 1


async def test_a_revocation_takes_back_nothing_and_lets_nothing_more_in(signed: Signed) -> None:
    await signed.tell(*signed.first())
    before = await signed.intervals()
    signed.publish({"revoked": {"revoked_at": int(hours(4.2).timestamp()), "reason": "compromised"}})
    for at in (hours(4.1), hours(4.5)):  # whoever stole the key can write any date
        late = decided(changed(2, STAGING, PRODUCTION, replaces=1), signed.key, decided_at=at)
        assert await signed.tell(event(late, 6, at=at)) == [NOT_VERIFIED]
    assert await signed.intervals() == before
    assert await signed.production() == 1
    problem = (await signed.audit.get("/v1/timeline?model=fraud&version=2"))["items"][-1]["problem"]
    assert f"the key {signed.key.kid}, which was revoked at 2026-" in problem
    assert problem.endswith("(compromised); what was logged before that stays believed")
    async with signed.audit.db.transaction() as tx:
        await rebuild(tx, signed.views)
    assert await signed.intervals() == before


async def test_what_a_retired_key_signed_in_its_time_is_believed_for_ever(signed: Signed) -> None:
    signed.publish({"exp": int(hours(4).timestamp())})
    assert await signed.tell(*signed.first()) == [None] * 5
    late = decided(changed(2, STAGING, PRODUCTION, replaces=1), signed.key, decided_at=hours(4.5))
    assert await signed.tell(event(late, 6, at=hours(4.5))) == [NOT_VERIFIED]
    assert await signed.tell(*signed.swap()) == [None, None]
    assert await signed.production() == 2


async def test_every_answer_says_whether_signatures_are_checked(audit: Harness, tmp_path: Path) -> None:
    ensure_key(tmp_path, "decision")
    for keys, said_so in ((None, "not-checked"), (str(tmp_path / "decision.jwks.json"), "checked")):
        audit.made = audit_app.build(audit.settings.model_copy(update={"decision_jwks": keys}))
        async with audit.client() as client:
            for path in ("/v1/models/fraud/production", "/v1/reports/four-eyes", "/v1/explain?model=fraud"):
                assert (await client.get(path)).headers["hallmark-signatures"] == said_so


async def test_the_service_takes_the_keys_from_its_settings(audit: Harness, tmp_path: Path) -> None:
    ensure_key(tmp_path, "decision")
    given = audit.settings.model_copy(update={"decision_jwks": str(tmp_path / "decision.jwks.json")})
    forged = record(event(changed(1, DEV, STAGING), 1))
    (outcome,) = await audit.log(views_of(given, audit.archive)).append([forged])
    assert outcome.flaw == NOT_VERIFIED
    trusting = audit.log(views_of(audit.settings, audit.archive))
    (outcome,) = await trusting.append([replace(forged, offset=forged.offset + 1)])
    assert outcome.flaw is None


VOTED: dict[str, Any] = {
    "votes": (vote("ben"), vote("cy", Choice.REJECT)),
    "gates": (Criterion(gate="accuracy", expression="metrics.accuracy > 0.9", result="passed"),),
    "policies": (PolicyRef(name="prod", revision=3, digest=digest(7)),),
}
# What a change tells in clear beside its decision.
BENT: dict[str, dict[str, Any]] = {
    "approvers": {"approved_by": (Approval(name="eve", at=NOON, meaning="approval"),)},
    "no approvers": {"approved_by": ()},
    "what an approval meant": {"approved_by": (Approval(name="ben", at=NOON, meaning="read"),)},
    "when it was given": {"approved_by": (Approval(name="ben", at=hours(1), meaning="approve by risk"),)},
    "gates": {"criteria": ()},
    "policy": {"policy": "prod r4"},
    "no policy": {"policy": None},
}


async def test_what_a_change_tells_beside_its_decision_is_what_was_signed(signed: Signed) -> None:
    await signed.tell(*signed.first())
    before = await signed.intervals()
    true = decided(changed(2, STAGING, PRODUCTION), signed.key, **VOTED)
    forged = [event(true.model_copy(update=bent), 6, at=hours(4.5)) for bent in BENT.values()]
    refused = refusal(true)
    forged += [event(refused.model_copy(update=BENT[name]), 6, at=hours(4.5)) for name in ("gates", "policy")]
    # Names and gates without any decision, in a stage that needs none.
    open_move = changed(2, STAGING, DEV, TransitionKind.RETIREMENT)
    given = ("approved_by", "criteria", "policy", "decision_id")
    forged += [event(open_move.model_copy(update={name: getattr(true, name)}), 6, at=hours(4.5)) for name in given]
    assert await signed.tell(*forged) == [NOT_VERIFIED] * len(forged)
    assert await signed.intervals() == before
    assert await signed.tell(event(refused, 6, at=hours(5)), event(true, 7, at=hours(6))) == [None, None]
    answer = await signed.audit.get("/v1/models/fraud/production")
    assert [(a["name"], a["meaning"]) for a in answer["approved_by"]] == [("ben", "approve by risk")]
    assert (answer["version"], answer["criteria"][0]["gate"], answer["policy"]) == (2, "accuracy", true.policy)
    await signed.assert_rebuilt_alike()


def refusal(change: StageChanged) -> StageRefused:
    told = {name: value for name, value in change if name in StageRefused.model_fields}
    return StageRefused(**told, code="target-changed", detail="somebody was faster")


async def test_what_the_approval_service_tells_is_what_it_signed(signed: Signed) -> None:
    """Its own events too: the decision and the order in clear are those under the signature."""
    change = decided(changed(2, STAGING, PRODUCTION), signed.key, **VOTED)
    decision = decided_by(change, *VOTED["votes"]).decision
    order = revocation()
    other = OKPKey.generate_key("Ed25519", {"kid": str(signed.key.kid)})
    good: list[Message] = [
        RequestDecided(decision=decision, jws=sign(decision, signed.key)),
        RevocationOrdered(revocation=order, jws=sign(order, signed.key)),
    ]
    forged: list[Message] = [
        RequestDecided(decision=decision, jws="a.b.c"),
        RequestDecided(decision=decision, jws=sign(decision, other)),
        RequestDecided(decision=decision.model_copy(update={"votes": ()}), jws=sign(decision, signed.key)),
        RequestDecided(decision=decision, jws=sign(order, signed.key)),
        RevocationOrdered(revocation=order, jws=sign(order, other)),
        RevocationOrdered(revocation=order.model_copy(update={"reason": "sold"}), jws=sign(order, signed.key)),
    ]
    records = [said(message, n) for n, message in enumerate([*good, *forged], 1)]
    flaws = [outcome.flaw for outcome in await signed.ledger.append(records)]
    assert flaws == [None, None, *[NOT_VERIFIED] * len(forged)]
    problem = (await signed.audit.rows(tables.finding))[2]["detail"]
    assert problem == "the decision that was signed has another votes"
    await signed.assert_rebuilt_alike()
