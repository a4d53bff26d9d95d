"""What a policy would have made of past requests."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    HOOK,
    HOUR,
    OPENED,
    REVIEW,
    RISK,
    SCAN,
    answer,
    asks,
    case_of,
    document,
    glass,
    in_force,
    inputs,
    vote,
    waiver,
    with_votes,
)

from contracts.approval import Choice
from policy.case import Case
from policy.reader import PolicyError
from policy.simulate import Decided, Past, Simulated, simulate

PRESENT = document("p", **asks(REVIEW))
BREAK: dict[str, Any] = {"allowed": ["group:oncall"], "page": ["group:risk"], "review": {"from": ["group:risk"]}}


def past(case: Case, *texts: str, decided: Decided = "approved", at: datetime = AT, name: str = "r-1") -> Past:
    return Past(name, case, in_force(*(texts or (PRESENT,))), decided, at)


def approved(**changes: Any) -> Case:
    """By Ben."""
    case = case_of(inputs(**changes))
    return with_votes(case, vote(case))


def only(text: str, one: Past) -> Simulated:
    (item,) = simulate(text, [one]).items
    return item


def would(text: str, one: Past) -> tuple[str, str, bool]:
    item = only(text, one)
    return item.would, item.reason, item.differs


def test_the_same_policy_decides_the_same() -> None:
    assert would(PRESENT, past(approved())) == ("approved", "approved by ben", False)


def test_it_takes_the_place_of_its_former_revision() -> None:
    two = document("p", **asks({**REVIEW, "count": 2}))
    assert would(two, past(approved())) == ("waiting", "p/review: 1 of 2", True)


def test_a_gate_that_would_have_blocked() -> None:
    gate = {"id": "auc", "cel": "candidate.metrics.auc >= 0.95", "message": "too low"}
    found = only(document("p", gates=[gate], **asks(REVIEW)), past(approved()))
    assert (found.would, found.phase, found.differs) == ("rejected", "decided", True)
    assert found.reason == "gates failed: p/auc: fail, too low; candidate.metrics.auc = 0.9"


def test_it_joins_the_others_where_it_applies() -> None:
    more = document("risk", {"transition": {"to": "Production"}, "tags": {"risk": "high"}}, **asks(RISK))
    high, low = approved(model={"tags": {"risk": "high"}}), approved()
    found = simulate(more, [past(high, name="high"), past(low, name="low")])
    assert (found.looked_at, found.applied_to, found.differing) == (2, 1, 1)
    assert [(item.request_id, item.policies, item.reason) for item in found.items] == [
        ("high", ("p", "risk"), "risk/risk: 0 of 1")
    ]


def test_other_policies_stay_as_they_were() -> None:
    other = document("q", **asks(RISK))
    case = approved()
    case = with_votes(case, vote(case, "rita", "risk", rule="q/risk", meaning="I accept the risk"))
    lenient = document("p")
    assert would(lenient, past(case, PRESENT, other)) == (
        "approved",
        "approved by rita; the vote of ben would have been refused: ben may not vote here; asked are: risk",
        False,
    )


def test_a_policy_that_is_not_about_it_any_more() -> None:
    narrower = document("p", {"transition": {"to": "Production"}, "models": ["churn"]}, **asks(REVIEW))
    assert would(narrower, past(approved())) == (
        "rejected",
        "no policy allows a promotion from Staging to Production",
        True,
    )
    assert would(narrower, past(approved(), PRESENT, document("q")))[::2] == ("approved", False)


def test_a_request_that_no_policy_was_about() -> None:
    one = Past("r-1", case_of(), [], "rejected", AT)
    assert would(document("p"), one) == ("approved", "no approval is asked for", True)
    assert simulate(document("p", {"transition": {"to": "Staging"}}), [one]).items == ()


# -- people -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (asks(RISK), "p/risk: 0 of 1; the vote of ben would have been refused: ben may not vote here; asked are: risk"),
        (asks({**REVIEW, "id": "renamed"}), None),
        (asks({**RISK, "from": ["group:reviewers"]}), None),
        (asks(REVIEW, signature={"reauthenticate_within": "1m", "methods": ["webauthn"]}), None),  # they can sign in
        (asks(REVIEW, valid_for="1m"), "p/review: 0 of 1"),
    ],
)
def test_votes_are_cast_again(policy: dict[str, Any], reason: str | None) -> None:
    case = case_of()
    case = with_votes(case, vote(case, at=AT - HOUR))
    expected = ("approved", "approved by ben", False) if reason is None else ("waiting", reason, True)
    assert would(document("p", **policy), past(case)) == expected


def test_separation_of_duties_of_tomorrow() -> None:
    case = approved(candidate={"lineage": {"committers": ["ben"]}})
    duties = {"exclude": ["requester", "version.author", "version.committers"]}
    verdict, reason, differs = would(document("p", **asks(REVIEW, separation_of_duties=duties)), past(case))
    assert (verdict, differs) == ("waiting", True)
    assert reason.endswith(
        "the vote of ben would have been refused: ben has commits in this version; another person must vote"
    )


def test_votes_keep_their_rule_where_it_is_still_theirs() -> None:
    both = document("p", **asks(REVIEW, {**RISK, "from": ["group:reviewers"]}))
    case = case_of()
    case = with_votes(case, vote(case, rule="p/risk"), vote(case, "bo", at=AT + timedelta(seconds=1)))
    assert would(both, past(case, both, at=AT + HOUR)) == ("approved", "approved by ben, bo", False)


def test_a_vote_for_somebody_else() -> None:
    case = case_of()
    case = with_votes(case, vote(case, on_behalf_of="rita"))
    allowed = document("p", **asks(REVIEW, delegation={"allowed": True}))
    assert would(allowed, past(case, allowed)) == ("approved", "approved by ben", False)
    assert would(PRESENT, past(case, allowed))[0] == "waiting"


def test_a_veto_stays_a_veto() -> None:
    case = case_of()
    case = with_votes(case, vote(case, choice=Choice.REJECT))
    assert would(PRESENT, past(case, decided="rejected")) == ("rejected", "ben rejected: because", False)
    other = document("p", **asks(REVIEW, deny={"from": ["group:veto"]}))
    assert would(other, past(case, decided="rejected"))[::2] == ("waiting", True)


# -- waivers, answers, emergencies, time --------------------------------------------------------------------------


def test_a_waiver_counts_where_its_gate_is_still_waivable() -> None:
    gate = {"id": "auc", "cel": "candidate.metrics.auc >= 0.95"}
    case = approved()
    case = replace(case, waivers=(waiver(case, "p/auc"),))
    assert would(document("p", gates=[{**gate, "waivable_by": ["group:leads"]}]), past(case))[0] == "approved"
    assert would(document("p", gates=[{**gate, "never_skip": True}]), past(case))[0] == "rejected"


def test_an_answer_counts_where_its_gate_is_still_asked() -> None:
    hook = {"id": "hook", "webhook": {"url": "https://checks.example.org/x", "secret": "checks"}}
    case = approved()
    case = replace(case, answers=(answer(case, "p/hook", "pass"),))
    assert would(document("p", gates=[hook]), past(case))[0] == "approved"
    assert would(document("p", gates=[{**hook, "id": "new"}]), past(case))[::2] == ("waiting", True)


def test_an_emergency() -> None:
    case = case_of()
    case = replace(case, glass=glass(case))
    knows = document("p", **asks(REVIEW), break_glass=BREAK)
    assert would(knows, past(case, knows))[::2] == ("approved", False)
    verdict, reason, differs = would(PRESENT, past(case, knows))
    assert (verdict, differs) == ("waiting", True)
    assert "olga could not have broken the glass: the policies of this request know no emergency" in reason
    others = document("p", **asks(REVIEW), break_glass={**BREAK, "allowed": ["group:board"]})
    assert "somebody of board may" in would(others, past(case, knows))[1]


def test_a_window_would_have_made_it_wait() -> None:
    closed = document("p", **asks(REVIEW), schedule={"windows": [{"tz": "UTC", "from": "14:00", "to": "15:00"}]})
    opens = (AT + 2 * HOUR).isoformat()
    assert would(closed, past(approved())) == ("approved", f"approved by ben, at {opens}", False)
    frozen = [{"name": "fair", "tz": "UTC", "from": "2026-01-12", "to": "2026-01-20"}]
    found = only(document("p", **asks(REVIEW), schedule={"freezes": frozen}), past(approved()))
    assert (found.would, found.phase, found.differs) == ("waiting", "schedule", True)


@pytest.mark.parametrize("decided", ["expired", "cancelled", "open"])
def test_what_was_never_decided_differs_when_it_would_have_been(decided: Decided) -> None:
    assert would(PRESENT, past(case_of(), decided=decided))[::2] == ("waiting", False)
    assert would(document("p"), past(case_of(), decided=decided))[::2] == ("approved", True)


def test_what_is_no_policy() -> None:
    with pytest.raises(PolicyError):
        simulate("x", [])


def test_many() -> None:
    requests = [past(approved(), name=f"r-{n}") for n in range(300)]
    found = simulate(document("p", **asks({**REVIEW, "count": 2})), requests)
    assert (found.looked_at, found.applied_to, found.differing) == (300, 300, 300)


# -- time ---------------------------------------------------------------------------------------------------------


def test_it_would_have_expired_before_anybody_voted() -> None:
    short = document("p", request={"expires_after": "30m"}, **asks(REVIEW))
    found = only(short, past(approved()))
    assert (found.would, found.differs) == ("expired", True)
    when = (OPENED + HOUR / 2).isoformat()
    assert found.reason == f"not decided before {when}: p/review: 0 of 1; the vote of ben would have come too late"
    assert would(short, past(case_of(), decided="expired"))[::2] == ("expired", False)


def test_it_would_have_been_approved_before_it_expired() -> None:
    case = case_of()
    case = with_votes(case, vote(case, at=OPENED + HOUR / 4))
    short = document("p", request={"expires_after": "30m"}, **asks(REVIEW))
    assert would(short, past(case)) == ("approved", "approved by ben", False)


def test_it_would_have_been_approved_a_little_later() -> None:
    waits = document("p", schedule={"min_wait": "9h"}, **asks(REVIEW))
    later = (OPENED + 9 * HOUR).isoformat()
    assert would(waits, past(approved())) == ("approved", f"approved by ben, at {later}", False)
    window = [{"tz": "UTC", "from": "03:00", "to": "04:00"}]
    both = document("p", schedule={"min_wait": "9h", "windows": window}, **asks(REVIEW))
    assert would(both, past(approved()))[0] == "approved"
    never = document("p", schedule={"min_wait": "9h"}, request={"expires_after": "8h"}, **asks(REVIEW))
    with pytest.raises(PolicyError, match="always expire"):
        would(never, past(approved()))


def test_whom_the_escalations_of_tomorrow_add() -> None:
    step = {"after": "1h", "do": "add_approvers", "rule": "review", "to": ["group:leads"]}
    ladder = document("p", escalation=[step], **asks(REVIEW))
    case = case_of()
    by_lea = with_votes(case, vote(case, "lea", "leads"))
    assert would(ladder, past(by_lea, ladder)) == ("approved", "approved by lea", False)
    added = replace(by_lea, added={"p/review": frozenset({"leads"})})
    assert would(PRESENT, past(added, ladder))[::2] == ("waiting", True)
    early = with_votes(case, vote(case, "lea", "leads", at=OPENED + HOUR / 2))
    assert would(ladder, past(early, ladder))[0] == "waiting"


@pytest.mark.parametrize("gate", [HOOK, SCAN])
def test_a_check_that_was_never_asked_for_is_no_failure(gate: dict[str, Any]) -> None:
    late, new = AT + 30 * HOUR, document("p", gates=[gate], **asks(REVIEW))
    verdict, reason, differs = would(new, past(approved(), at=late))
    assert (verdict, differs) == ("waiting", True)
    assert reason == f"p/{gate['id']} has not answered; p/{gate['id']} was never asked"
    assert would(new, past(approved(), new, decided="rejected", at=late))[::2] == ("rejected", False)
