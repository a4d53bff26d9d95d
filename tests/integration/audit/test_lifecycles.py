"""Workspaces with stages of their own: what is gated there, and what the log knew of it when a change came."""

import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from audit import tables, view_tables
from audit.domain import NOT_VERIFIED
from contracts.envelope import Envelope
from contracts.lifecycle import Lifecycle, Move, Stage, StageRule, TransitionKind
from contracts.payload import Message
from contracts.registry import AliasChanged, ModelRenamed, StageChanged, VersionNoted, WorkspaceConfigured

from .conftest import Harness, changed, digest, event, hours, record, registered
from .signed import DEV, PRODUCTION, STAGING, Signed, decided


def configured(live: int | None = 3, *, qa_gated: bool = False, qa_holds: int | None = 2) -> WorkspaceConfigured:
    """Draft -> QA -> Live -> Attic; only Live is gated unless told otherwise."""
    lifecycle = Lifecycle(
        stages=(
            StageRule(name="Draft"),
            StageRule(name="QA", gated=qa_gated, holds=qa_holds),
            StageRule(name="Live", gated=True, holds=live),
            StageRule(name="Attic"),
        ),
        moves=(Move(origin="Draft", to="QA"), Move(origin="QA", to="Live"), Move(origin="Live", to="Attic")),
        initial="Draft",
        archive="Attic",
    )
    return WorkspaceConfigured(workspace="default", lifecycle=lifecycle)


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


def told(at: float, first: int, *messages: Message) -> list[Envelope]:
    return [event(message, sequence, at=hours(at)) for sequence, message in enumerate(messages, start=first)]


def entering(version: int, to: str, *leaving: int, names: bool = True, start: str = "Draft") -> list[StageChanged]:
    """A move with those that make room for it before it, as the registry writes them."""
    kind = TransitionKind.RETIREMENT if to == "QA" else TransitionKind.PROMOTION
    change = changed(version, start, to, kind, replaces=leaving[0] if leaving and names else None)
    out = [
        changed(former, to, "Attic", TransitionKind.SUPERSEDED, superseded_by=version).model_copy(
            update={"transition_id": change.transition_id}
        )
        for former in leaving
    ]
    return [*out, change]


async def stage(signed: Signed, name: str, at: float = 100) -> Any:
    when = quote(hours(at).isoformat())
    return await signed.audit.get(f"/v1/models/fraud/production?at={when}&stage={name}")


async def versions(signed: Signed, name: str, at: float = 100) -> list[int]:
    return [tenant["version"] for tenant in (await stage(signed, name, at))["occupants"]]


def custom(signed: Signed, *, names: bool = True) -> list[Envelope]:
    """Rules at noon; three versions through QA, which holds two; v2 and v3 go Live; then one goes, by holds."""
    drafts = [registered(n, stage="Draft") for n in (1, 2, 3)]
    qa = [*entering(1, "QA"), *entering(2, "QA"), *entering(3, "QA", 1, names=names)]
    live = [decided(change, signed.key) for n in (2, 3) for change in entering(n, "Live", start="QA")]
    return [
        event(configured(), 1, at=hours(0)),
        *told(1, 1, *drafts),
        *told(2, 4, *qa),
        *told(3, 8, live[0]),
        *told(4, 9, live[1]),
    ]


async def test_stages_of_its_own_with_several_occupants(signed: Signed) -> None:
    envelopes = custom(signed)
    assert await signed.tell(*envelopes) == [None] * len(envelopes)
    live = await stage(signed, "live")
    assert (live["stage"], live["version"], live["others"]) == ("Live", 3, [2])
    assert [(o["version"], o["since"][11:13], o["until"]) for o in live["occupants"]] == [
        (3, "16", None),
        (2, "15", None),
    ]
    assert live["occupants"][0]["decision_id"] == live["decision_id"] is not None
    assert await versions(signed, "LIVE", 3.5) == [2]
    assert await versions(signed, "qa", 2.5) == [3, 2]
    assert await versions(signed, "Attic") == [1]
    assert await versions(signed, "Draft", 1.5) == [3, 2, 1]
    nobody = await stage(signed, "Elsewhere")
    assert (nobody["stage"], nobody["version"], nobody["occupants"]) == ("Elsewhere", None, [])
    rows = [row for row in await signed.intervals() if row["stage"] == "Attic"]
    assert [(row["superseded_by"], row["kind"]) for row in rows] == [(3, "superseded")]
    await signed.assert_rebuilt_alike()


@pytest.mark.parametrize("names", [True, False])
async def test_who_makes_room_in_an_ungated_stage_goes_to_the_archive(signed: Signed, names: bool) -> None:
    await signed.tell(*custom(signed, names=names)[:-2])
    assert await versions(signed, "QA") == [3, 2]
    assert await versions(signed, "Attic") == [1]


async def test_all_who_make_room_leave_when_a_stage_came_to_hold_fewer(signed: Signed) -> None:
    await signed.tell(*custom(signed), event(configured(live=1), 2, at=hours(5)))
    fourth = entering(4, "Live", 2, 3, start="QA")
    more = [registered(4, stage="Draft"), *entering(4, "QA"), *fourth[:2], decided(fourth[2], signed.key)]
    assert await signed.tell(*told(6, 10, *more)) == [None] * 5
    assert await versions(signed, "Live") == [4]
    assert await versions(signed, "Attic") == [3, 2, 1]
    await signed.assert_rebuilt_alike()


async def test_nobody_is_pushed_out_but_by_the_change_that_names_them(signed: Signed) -> None:
    await signed.tell(*custom(signed))
    forged = entering(4, "Live", 2, 3, start="QA")
    change = decided(forged[2].model_copy(update={"replaces": None}), signed.key)
    await signed.tell(*told(6, 10, *forged[:2], change))
    assert await versions(signed, "Live") == [4, 3, 2]


@pytest.mark.parametrize("seed", range(4))
async def test_rules_and_changes_in_any_order_give_the_same_past(signed: Signed, seed: int) -> None:
    envelopes = [*custom(signed), event(configured(qa_gated=True), 2, at=hours(5))]
    forged = entering(3, "QA", start="Live")[0].model_copy(update={"transition_id": "forged"})
    envelopes += [event(forged, 10, at=hours(6))]
    random.Random(seed).shuffle(envelopes)
    await signed.tell(*envelopes)
    assert await versions(signed, "Live") == [3, 2]
    assert await versions(signed, "QA") == []
    assert await versions(signed, "Attic") == [1]
    page = await signed.audit.get("/v1/timeline?limit=100")
    flagged = [item["event_id"] for item in page["items"] if item["problem"]]
    assert flagged == [e.id for e in envelopes if e.sequence == 10]
    assert await signed.audit.rows(tables.mechanism.early) == []
    await signed.assert_rebuilt_alike()


async def test_a_change_before_its_rules_is_doubted_until_they_come(signed: Signed) -> None:
    rules, draft, *_ = custom(signed)
    first = told(2, 2, *entering(1, "QA"))
    assert await signed.tell(draft, *first) == [NOT_VERIFIED, NOT_VERIFIED]
    assert await versions(signed, "QA") == []
    problems = [row["problem"] for row in await signed.audit.rows(view_tables.timeline)]
    assert all(problem.startswith(NOT_VERIFIED) for problem in problems)
    await signed.assert_rebuilt_alike()
    assert await signed.tell(rules) == [None]
    assert await versions(signed, "QA") == [1]
    rows = await signed.audit.rows(view_tables.timeline)
    assert [row["problem"] for row in rows] == [None] * 3
    assert rows[1]["summary"].startswith("ana moved fraud v1 from Draft to QA")
    await signed.assert_rebuilt_alike()
    # What was said at arrival stays in the log beside it.
    assert [(f["index"], f["code"]) for f in await signed.audit.rows(tables.finding)] == [
        (0, NOT_VERIFIED),
        (1, NOT_VERIFIED),
    ]


async def test_a_change_believed_is_taken_back_when_its_gate_turns_out(signed: Signed) -> None:
    rules, draft, *_ = custom(signed)
    change = told(6, 2, *entering(1, "QA"))
    assert await signed.tell(rules, draft, *change) == [None] * 3
    assert await versions(signed, "QA") == [1]
    assert await signed.tell(event(configured(qa_gated=True), 2, at=hours(5))) == [None]
    assert await versions(signed, "QA") == []
    assert await versions(signed, "Draft") == [1]
    row = (await signed.audit.rows(view_tables.timeline))[2]
    assert row["problem"].startswith(NOT_VERIFIED)
    assert "QA is not open" in row["summary"]
    # A record that comes again is told the same, should the first telling have been lost.
    assert await signed.tell(*change) == [NOT_VERIFIED]
    await signed.assert_rebuilt_alike()


async def test_rules_that_change_nothing_of_the_past_leave_it_alone(signed: Signed) -> None:
    await signed.tell(*signed.first(), *signed.swap())
    before = await signed.intervals()
    assert await signed.tell(event(configured(), 1, at=hours(50))) == [None]
    assert await signed.intervals() == before
    assert await signed.production() == 2


@pytest.mark.parametrize("late", [True, False])
async def test_a_gate_cannot_be_walked_around(signed: Signed, late: bool) -> None:
    """Undecided changes into Live, whatever they call themselves, before or after the rules are known."""
    rules, *rest = custom(signed)
    forged = [
        event(registered(9, stage="Live"), 10, at=hours(7)),
        event(changed(1, "Attic", "Live", TransitionKind.ROLLBACK), 10, at=hours(7)),
        event(changed(1, "Attic", "Live", TransitionKind.RETIREMENT), 10, at=hours(7)),
        event(changed(1, "Attic", "Live", TransitionKind.SUPERSEDED), 10, at=hours(7)),
        event(changed(1, "Attic", "live"), 10, at=hours(7)),
    ]
    if late:
        assert (await signed.tell(*forged, *rest))[:5] == [NOT_VERIFIED] * 5
        await signed.tell(rules)
    else:
        await signed.tell(rules, *rest)
        assert await signed.tell(*forged) == [NOT_VERIFIED] * 5
    assert await versions(signed, "Live") == [3, 2]
    problems = {row["event_id"]: row["problem"] for row in await signed.audit.rows(view_tables.timeline)}
    assert {problems[e.id].split(":")[0] for e in forged} == {NOT_VERIFIED}
    await signed.assert_rebuilt_alike()


async def test_a_gate_of_the_default_lifecycle_counts_until_rules_open_it(signed: Signed) -> None:
    open_all = Lifecycle(
        stages=tuple(StageRule(name=name) for name in Stage), initial=DEV, archive=Stage.ARCHIVED, open_moves=True
    )
    await signed.tell(event(WorkspaceConfigured(workspace="default", lifecycle=open_all), 1, at=hours(3)))
    early = event(changed(1, DEV, STAGING), 2, at=hours(2))
    assert await signed.tell(event(registered(1), 1, at=hours(1)), early) == [None, NOT_VERIFIED]
    assert await signed.tell(event(changed(1, DEV, PRODUCTION), 2, at=hours(4))) == [None]
    assert await signed.production() == 1


@pytest.mark.parametrize("at", [-5, 7])
async def test_two_rules_in_one_place_are_flagged_and_the_stricter_counts(signed: Signed, at: float) -> None:
    rules, *rest = custom(signed)
    lifecycle = configured().lifecycle
    ungated = tuple(rule.model_copy(update={"gated": False}) for rule in lifecycle.stages)
    looser = configured().model_copy(update={"lifecycle": lifecycle.model_copy(update={"stages": ungated})})
    undecided = event(changed(1, "Attic", "Live"), 10, at=hours(at))
    assert await signed.tell(event(looser, 1, at=hours(-9)), *rest, undecided) == [None] * (len(rest) + 2)
    assert sorted(await versions(signed, "Live")) == [1, 2, 3]
    assert await signed.tell(rules) == ["contested"]
    assert await versions(signed, "Live") == [3, 2]
    await signed.assert_rebuilt_alike()


async def test_rules_of_another_workspace_say_nothing_of_this_one(signed: Signed) -> None:
    other = event(configured().model_copy(update={"workspace": "other"}), 1)
    assert await signed.tell(other, event(registered(1, stage="Draft"), 1)) == [None, NOT_VERIFIED]
    away = event(configured(), 1, key="workspace:other")
    assert await signed.tell(away) == ["astray"]
    assert await signed.audit.rows(view_tables.configuration) != []
    assert {row["workspace"] for row in await signed.audit.rows(view_tables.configuration)} == {"other"}


@pytest.mark.parametrize("seed", range(3))
async def test_everything_at_once_comes_out_of_a_rebuild_identical(signed: Signed, seed: int) -> None:
    """Stages, aliases, names, rules, forgeries, copies and noise, in any order, and rules that come last."""
    rules, *rest = custom(signed)
    model: dict[str, Any] = {"workspace": "default", "model": "fraud"}
    pointing = AliasChanged(
        **model,
        alias="champion",
        version=3,
        digest=digest(3),
        artifact_digest=digest(3),
        requested_by="ana",
        reason="won",
    )
    more = told(
        6, 10, ModelRenamed(**model, former="fraud", name="scam"), pointing, VersionNoted(**model, version=1, text="x")
    )
    forged = [
        event(changed(1, "Attic", "Live"), 11, at=hours(7)),
        event(pointing.model_copy(update={"version": 1, "reason": "mine"}), 30, at=hours(9)),
    ]
    copy = rest[3].model_copy(update={"actor": "mallory"})
    protecting = configured().model_copy(update={"protected_aliases": ("champion",)})
    envelopes = [*rest, *more, *forged, copy, event(protecting, 2, at=hours(8))]
    random.Random(seed).shuffle(envelopes)
    await signed.tell(*envelopes)
    await signed.assert_rebuilt_alike()
    await signed.tell(rules)
    assert await versions(signed, "live") == [3, 2]
    assert (await signed.audit.get("/v1/models/scam/aliases/champion"))["version"] == 3
    page = await signed.audit.get("/v1/timeline?model=scam&limit=100")
    flagged = {item["event_id"] for item in page["items"] if item["problem"]}
    assert flagged == {e.id for e in [*forged, copy]}  # the id of a copy that says something else is used twice
    await signed.assert_rebuilt_alike()


async def test_without_keys_every_change_is_believed(audit: Harness) -> None:
    draft, forged = registered(1, stage="Draft"), changed(1, "Draft", "Live")
    outcomes = await audit.ledger.append([record(e) for e in told(1, 1, draft, forged)])
    assert [outcome.flaw for outcome in outcomes] == [None, None]
