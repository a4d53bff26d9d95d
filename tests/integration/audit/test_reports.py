"""Questions of auditors: lead times, people, four eyes, rollbacks, emergencies, revocations, gaps."""

from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from joserfc.jwk import OKPKey
from tests.support.decisions import revocation

from approval.decision import sign
from contracts.approval import (
    BreakGlass,
    Choice,
    Decision,
    GateWaived,
    GlassBroken,
    RequestDecided,
    ReviewGiven,
    ReviewOverdue,
    RevocationOrdered,
    Verdict,
    Vote,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
    Waiver,
)
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Lineage
from contracts.payload import Message
from contracts.registry import Approval, StageChanged, Transition, VersionNoted, VersionRegistered, VersionRevoked
from contracts.topics import APPROVAL_EVENTS, REGISTRY_EVENTS
from hallmark.results import Entered as SeenBy
from kit.bus import Record

from .conftest import NOON, Harness, changed, digest, event, hours, record, registered, story
from .signed import Signed, decided
from .test_aliases import alias
from .test_pages import walk

DEV, STAGING, PRODUCTION, ARCHIVED = Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


def said(
    message: Message,
    sequence: int,
    at: float = 0,
    subject: str = "default/fraud/1",
    key: str = "default/fraud",
    **more: Any,
) -> Record:
    """An event of the approval service about a version."""
    envelope = event(message, sequence, key=key, subject=subject, source="hallmark/approval", at=hours(at), **more)
    return record(envelope, topic=APPROVAL_EVENTS.name)


def vote(voter: str, choice: Choice = Choice.APPROVE, **more: Any) -> Vote:
    given = {"rule": "prod/agree", "meaning": f"{choice} by risk", "auth_method": "webauthn", "comment": "fine", **more}
    return Vote(voter=voter, choice=choice, at=NOON, request_digest=digest(0), **given)


def authored(version: int, by: str, *committers: str) -> VersionRegistered:
    made = registered(version)
    content = made.content.model_copy(update={"lineage": Lineage(committers=committers)})
    return made.model_copy(update={"registered_by": by, "content": content})


def gated(version: int, by: str, *approvers: str, start: str = STAGING, to: str = PRODUCTION) -> StageChanged:
    approved = tuple(Approval(name=name, at=NOON, meaning="approval") for name in approvers)
    change = changed(version, start, to, requested_by=by, approved_by=approved)
    return change.model_copy(update={"decision_id": f"d-{change.transition_id}"})


def decided_by(change: StageChanged, *votes: Vote) -> RequestDecided:
    given = {name: getattr(change, name) for name in Transition.model_fields}
    decision = Decision(
        **given,
        decision_id=str(change.decision_id),
        verdict=Verdict.APPROVED,
        reason="",
        requested_by=change.requested_by,
        policies=(),
        gates=(),
        votes=votes,
        inputs_digest=digest(0),
        request_digest=digest(0),
        decided_at=NOON,
        expires_at=hours(72),
    )
    return RequestDecided(decision=decision, jws="a.b.c")


async def test_lead_times_are_those_of_a_naive_count(audit: Harness) -> None:
    """Registered at n hours, in Production 2n + 1 hours later; one never gets there, one gets there twice."""
    seconds: dict[str, list[float]] = {"fraud": [], "churn": []}
    sequences = {"fraud": 1, "churn": 1}
    for n in range(1, 8):
        model = "fraud" if n % 3 else "churn"
        moves: list[tuple[float, Message]] = [(n, registered(n, model))]
        if n != 7:
            moves.append((3 * n + 1, changed(n, DEV, PRODUCTION).model_copy(update={"model": model})))
            seconds[model].append((2 * n + 1) * 3600)
        if n == 2:
            back = {"transition_id": "again"}
            moves.append((50, changed(n, PRODUCTION, ARCHIVED)))
            moves.append((51, changed(n, ARCHIVED, PRODUCTION, TransitionKind.ROLLBACK).model_copy(update=back)))
        for at, message in moves:
            await audit.ledger.append([record(event(message, sequences[model], at=hours(at)))])
            sequences[model] += 1
    items, _ = await walk(audit, "/v1/reports/lead-times")
    assert sorted(i["seconds"] for i in items) == sorted(seconds["fraud"] + seconds["churn"])
    assert [i["at"] for i in items] == sorted(i["at"] for i in items)
    timeline = {i["index"]: i for i in (await audit.get("/v1/timeline?limit=100"))["items"]}
    for item in items:
        assert timeline[item["registered_index"]]["type"] == "hallmark.version.registered.v1"
        assert timeline[item["index"]]["version"] == item["version"]
        assert timeline[item["index"]]["at"] == item["at"]
    overall = (await audit.get("/v1/reports/lead-times?limit=1"))["overall"]
    everything = seconds["fraud"] + seconds["churn"]
    assert (overall["versions"], overall["p50"]) == (6, median(everything))
    assert (overall["least"], overall["most"]) == (min(everything), max(everything))
    models, _ = await walk(audit, "/v1/reports/lead-times/models")
    assert {m["model"]: (m["versions"], m["p50"]) for m in models} == {
        name: (len(values), median(values)) for name, values in seconds.items()
    }
    one = await audit.get("/v1/reports/lead-times?model=churn")
    assert one["overall"]["versions"] == 2
    assert (await audit.get("/v1/reports/lead-times?stage=Nowhere"))["overall"]["versions"] == 0


async def test_who_approved_what_and_what_they_meant(audit: Harness) -> None:
    refused = VoteRefused(request_id="t1", voter="eve", choice=Choice.APPROVE, code="not-allowed", detail="no right")
    records = [
        said(VoteCast(request_id="t1", vote=vote("ben")), 1, 1),
        said(VoteCast(request_id="t1", vote=vote("cy", Choice.REJECT, on_behalf_of="dan")), 2, 2),
        said(VoteWithdrawn(request_id="t1", voter="ben", reason="too early"), 3, 3),
        said(refused, 4, 4),
        said(VoteCast(request_id="t2", vote=vote("ben")), 5, 5, "default/fraud/2"),
    ]
    await audit.ledger.append([*records, records[0]])
    items, _ = await walk(audit, "/v1/reports/approvals")
    assert [(i["index"], i["person"], i["act"], i["request"], i["version"]) for i in items] == [
        (0, "ben", "approve", "t1", 1),
        (1, "cy", "reject", "t1", 1),
        (2, "ben", "withdraw", "t1", 1),
        (3, "eve", "refused", "t1", 1),
        (4, "ben", "approve", "t2", 2),
    ]
    assert (items[0]["meaning"], items[0]["rule"], items[0]["auth_method"]) == (
        "approve by risk",
        "prod/agree",
        "webauthn",
    )
    assert (items[1]["on_behalf_of"], items[2]["comment"], items[3]["code"]) == ("dan", "too early", "not-allowed")
    for query, wanted in (("person=ben", [0, 2, 4]), ("act=refused", [3]), ("request=t2", [4]), ("version=2", [4])):
        assert [i["index"] for i in (await audit.get(f"/v1/reports/approvals?{query}"))["items"]] == wanted
    people, _ = await walk(audit, "/v1/reports/approvals/people")
    assert [(p["person"], p["approve"], p["reject"], p["withdraw"], p["refused"]) for p in people] == [
        ("ben", 2, 0, 1, 0),
        ("cy", 0, 1, 0, 0),
        ("eve", 0, 0, 0, 1),
    ]
    assert (people[0]["first_index"], people[0]["last_index"]) == (0, 4)


async def test_four_eyes_tells_whose_eyes_saw_what(audit: Harness) -> None:
    told: list[Message] = [
        authored(1, "ana", "zoe@example.com"),
        gated(1, "olga", "ben", start=DEV, to=STAGING),  # good
        gated(1, "olga", "ben", "Olga"),  # who asked for it agreed
        authored(2, "ana"),
        gated(2, "olga", "ana", start=DEV, to=STAGING),  # who made it agreed
        gated(2, "olga"),  # nobody was asked
        authored(3, "ana", "zoe@example.com"),
        (by_mail := gated(3, "olga", "zoe", start=DEV, to=STAGING)),  # who has commits in it agreed
        (for_her := gated(3, "olga", "ben")),  # somebody agreed for who asked
        changed(3, PRODUCTION, ARCHIVED, TransitionKind.RETIREMENT),  # not gated
    ]
    await audit.ledger.append([record(event(m, n, at=hours(n))) for n, m in enumerate(told, 1)])
    decisions = [
        decided_by(by_mail, vote("zoe", email="Zoe@example.com"), vote("ana", Choice.REJECT)),
        decided_by(for_her, vote("ben", on_behalf_of="olga")),
    ]
    await audit.ledger.append([said(m, n) for n, m in enumerate(decisions, 1)])
    items, _ = await walk(audit, "/v1/reports/four-eyes")
    assert [(i["index"], i["finding"], i["unverified"]) for i in items] == [
        (1, "unverified", True),
        (2, "violation", True),
        (4, "violation", True),
        (5, "unapproved", True),
        (7, "violation", False),
        (8, "violation", False),
    ]
    by_index = {i["index"]: i for i in items}
    assert (by_index[2]["requester_approved"], by_index[2]["author_approved"]) == (["Olga"], [])
    assert by_index[4]["author_approved"] == ["ana"]
    assert by_index[7]["author_approved"] == ["Zoe@example.com"]
    assert by_index[8]["requester_approved"] == ["olga"]
    assert (by_index[8]["decided_index"], by_index[8]["registered_index"]) == (11, 6)
    only = await audit.get("/v1/reports/four-eyes?violations=true&version=1")
    assert [i["index"] for i in only["items"]] == [2]


async def test_four_eyes_knows_waivers_emergencies_and_what_was_not_let_through(signed: Signed) -> None:
    """With the keys: who asked for a change waives a gate for it, breaks the glass for it, tries to vote for it."""
    audit, key = signed.audit, signed.key
    waived, broken = changed(1, DEV, STAGING), changed(1, STAGING, PRODUCTION)
    waiver = Waiver(gate="prod/auc", by="Ana", reason="late", at=NOON, auth_method="t", request_digest=digest(0))
    told: dict[StageChanged, dict[str, Any]] = {
        waived: {"votes": (vote("ben"),), "waived": (waiver,)},
        broken: {"break_glass": glass(broken.transition_id).glass.model_copy(update={"by": "ana"})},
    }
    changes = [decided(change, key, **said_of) for change, said_of in told.items()]
    decisions = [signed_decision(change, key, **told[bare]) for change, bare in zip(changes, told, strict=True)]
    refused = VoteRefused(request_id="t1", voter="ana", choice=Choice.APPROVE, code="own-request", detail="asked")
    undecided = changed(1, PRODUCTION, STAGING)
    await signed.tell(event(registered(1), 1), *(event(m, n) for n, m in enumerate(changes, 2)), event(undecided, 4))
    of_approval = [*decisions, GateWaived(request_id=waived.transition_id, waiver=waiver), refused]
    await signed.ledger.append([said(m, n) for n, m in enumerate(of_approval, 1)])
    items, _ = await walk(audit, "/v1/reports/four-eyes")
    assert [(i["index"], i["finding"], i["own_waiver"], i["entered"]) for i in items] == [
        (1, "violation", ["Ana"], True),
        (2, "violation", ["ana"], True),
        (3, "refused", [], False),
        (7, "refused", [], False),
    ]
    assert (items[0]["waived_by"], items[1]["broken_by"], items[1]["unapproved"]) == (["Ana"], "ana", True)
    assert items[2]["problem"].startswith("decision-not-verified: the change carries no signed decision")
    assert (items[3]["requested_by"], items[3]["problem"]) == ("ana", "own-request: asked")
    assert [SeenBy.model_validate(item).finding for item in items] == [item["finding"] for item in items]
    only = await audit.get("/v1/reports/four-eyes?finding=refused")
    assert [i["index"] for i in only["items"]] == [3, 7]
    [one] = (await audit.get("/v1/reports/approvals?act=waive"))["items"]
    assert one["signed_index"] == 4
    # A decision that was bent on its way confirms nobody, and shows nobody.
    forged = decisions[0].model_copy(update={"decision": decisions[0].decision.model_copy(update={"waived": ()})})
    assert [o.flaw for o in await signed.ledger.append([said(forged, 5)])] == ["decision-not-verified"]


async def test_four_eyes_tells_what_got_in_without_a_decision(audit: Harness) -> None:
    """Where the service has no keys, and so believes it."""
    told = [registered(1), changed(1, DEV, STAGING), changed(1, STAGING, DEV), changed(1, DEV, PRODUCTION)]
    await audit.ledger.append([record(event(m, n, at=hours(n))) for n, m in enumerate(told, 1)])
    items, _ = await walk(audit, "/v1/reports/four-eyes")
    assert [(i["index"], i["finding"], i["target"]) for i in items] == [
        (1, "undecided", "Staging"),
        (3, "undecided", "Production"),
    ]
    assert (await audit.get("/v1/reports/four-eyes?violations=true"))["items"] == []


def signed_decision(change: StageChanged, key: OKPKey, **more: Any) -> RequestDecided:
    """The approval service's event about the decision that the change carries."""
    bare = decided_by(change).decision
    decision = bare.model_copy(update={"gates": change.criteria, **more})
    return RequestDecided(decision=decision, jws=sign(decision, key))


async def test_rollbacks_are_told(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    pointed = [alias(1), alias(2, 1), alias(1, 2, requested_by="olga"), alias(1, 1)]
    await audit.ledger.append([record(event(m, n, at=hours(n))) for n, m in enumerate(pointed, 10)])
    items, _ = await walk(audit, "/v1/reports/rollbacks")
    assert [(i["index"], i["stage"], i["version"], i["replaced"], i["requested_by"]) for i in items] == [
        (8, "Production", 1, 2, "olga"),
        (11, "@champion", 1, 2, "olga"),
    ]


def glass(request: str) -> GlassBroken:
    return GlassBroken(
        request_id=request,
        glass=BreakGlass(
            by="olga",
            groups=("oncall",),
            reason="the model is down",
            at=NOON,
            auth_method="webauthn",
            request_digest=digest(0),
            skips=("votes",),
            page=("risk",),
            until=hours(1),
            review=("risk",),
            review_count=1,
            review_by=NOON + timedelta(days=1),
        ),
    )


@pytest.mark.parametrize("state", ["open", "overdue", "justified", "not-justified"])
async def test_uses_of_break_glass_and_their_reviews(audit: Harness, state: str) -> None:
    change = changed(1, DEV, PRODUCTION)
    request = change.transition_id
    given = {"reviewer": "ben", "groups": ("risk",), "comment": "seen", "at": NOON, "auth_method": "webauthn"}
    then: dict[str, list[Message]] = {
        "open": [],
        "overdue": [ReviewOverdue(request_id=request, page=("risk",), frozen=True)],
        "justified": [ReviewGiven(request_id=request, justified=True, closes=True, **given)],
        "not-justified": [ReviewGiven(request_id=request, justified=False, closes=False, **given)],
    }
    told = [glass(request), glass("another"), *then[state]]
    await audit.ledger.append([record(event(registered(1), 1))])
    await audit.ledger.append([said(m, n) for n, m in enumerate(told, 1)])
    await audit.ledger.append([record(event(change, 2))])
    items, _ = await walk(audit, "/v1/reports/break-glass")
    assert [i["index"] for i in items] == [1, 2]
    first, other = items
    assert (first["person"], first["reason"], first["skips"], first["state"]) == (
        "olga",
        "the model is down",
        ["votes"],
        state,
    )
    assert first["entered_index"] == 3 + len(then[state])
    assert [r["index"] for r in first["reviews"]] == ([3] if "justified" in state else [])
    assert first["overdue_index"] == (3 if state == "overdue" else None)
    assert (other["state"], other["entered_index"]) == ("open", None)


async def test_a_change_that_was_logged_before_its_emergency_is_told(audit: Harness) -> None:
    """They lie on two topics: nothing says which is read first."""
    change = changed(1, DEV, PRODUCTION)
    await audit.ledger.append([record(event(registered(1), 1)), record(event(change, 2))])
    await audit.ledger.append([said(glass(change.transition_id), 1)])
    [one] = (await audit.get("/v1/reports/break-glass"))["items"]
    assert (one["index"], one["entered_index"]) == (2, 1)


async def test_revocations_name_the_order_they_rest_on(audit: Harness) -> None:
    order = {"workspace": "default", "model": "fraud", "version": 2, "digest": digest(2), "revoked_by": "rita"}
    told = RevocationOrdered(
        revocation=revocation(**order, reason="poisoned", fallback=1, artifact_digest=digest(2)), jws="a.b.c"
    )
    done = VersionRevoked(**order, reason="poisoned", fallback=1, revocation="a.b.c")
    await audit.ledger.append([said(told, 1), record(event(done, 1))])
    [item] = (await audit.get("/v1/reports/revocations"))["items"]
    assert (item["index"], item["ordered_index"], item["revoked_by"], item["fallback"]) == (1, 0, "rita", 1)


async def test_gaps_are_those_of_a_naive_search(audit: Harness) -> None:
    streams = {"a": [1, 2, 5, 6], "b": [3], "c": [1, 2, 3], "d": [9, 2, 4]}
    note = {"workspace": "default", "version": 1, "text": "x"}
    for name, numbers in streams.items():
        await audit.ledger.append([record(event(VersionNoted(model=name, **note), n)) for n in numbers])
    await audit.ledger.append([record(event(registered(1), 1), value=b"junk")])
    items, _ = await walk(audit, "/v1/reports/gaps")
    wanted = []
    for name, numbers in streams.items():
        missing = sorted(set(range(1, max(numbers))) - set(numbers))
        wanted += [(f"default/{name}", n) for n in missing]
    found = [(i["stream"], n) for i in items for n in range(i["first_missing"], i["last_missing"] + 1)]
    assert found == wanted
    page = await audit.get("/v1/reports/gaps")
    assert page["problems"] == [{"code": "bad-event", "entries": 1, "first_index": 11, "last_index": 11}]


async def test_gaps_name_missing_offsets_too(audit: Harness) -> None:
    note = VersionNoted(workspace="default", model="a", version=1, text="x")
    await audit.ledger.append([record(event(note, n), offset=offset) for n, offset in ((1, 0), (2, 3), (3, 4), (4, 6))])
    page = await audit.get("/v1/reports/gaps?limit=1")
    assert page["items"] == []
    place = {"topic": REGISTRY_EVENTS.name, "partition": 0, "epoch": 0}
    assert page["offsets"] == [
        {**place, "first_missing": 1, "last_missing": 2},
        {**place, "first_missing": 5, "last_missing": 5},
    ]
    # The broker explains the first, to whichever process, and begins anew.
    await audit.execute(f"insert into audit.offset_gap values ('{REGISTRY_EVENTS.name}', 0, 0, 1, 3)")
    await audit.ledger.append([record(event(note, n), offset=offset) for n, offset in ((5, 0), (6, 2))])
    assert (await audit.get("/v1/reports/gaps?limit=1"))["offsets"] == [
        {**place, "first_missing": 5, "last_missing": 5},
        {**place, "epoch": 1, "first_missing": 1, "last_missing": 1},
    ]


REPORTS = (
    "lead-times", "lead-times/models", "rollbacks", "revocations", "approvals", "approvals/people", "four-eyes",
    "break-glass",
)  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
async def test_reports_are_for_those_who_may_read_what_they_are_about(audit: Harness, name: str) -> None:
    path = f"/v1/reports/{name}"
    for query in ("workspace=*", "workspace=other", "workspace=other&model=x"):
        assert await audit.status(f"{path}?{query}", "ml-engineers") == 403
        assert await audit.status(f"{path}?{query}", "auditors") == 200
    for query in ("", "model=fraud"):
        assert await audit.status(f"{path}?{query}", "ml-engineers") == 200
        assert await audit.status(f"{path}?{query}", "strangers") == 403
    for query in ("limit=0", "after=x", "since=yesterday", "version=0", "workspace=**"):
        assert await audit.status(f"{path}?{query}", "auditors") == 422


async def test_gaps_are_for_auditors_of_everything(audit: Harness) -> None:
    assert await audit.status("/v1/reports/gaps", "local-auditors") == 403
