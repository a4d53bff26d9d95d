"""What policies ask together: every match applies, the union holds, strictest wins, and no match refuses."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    DIGEST,
    HOOK,
    OPENED,
    PRODUCTION,
    REVIEW,
    RISK,
    SOON,
    asks,
    document,
    in_force,
    inputs,
    needs_at,
)

from contracts.lifecycle import REGISTRY
from policy.document import parse
from policy.matching import applicable, names_now
from policy.needs import UNSAFE_GATE, Emergency, Needs, needs_of


def names(*texts: str, **changes: Any) -> list[str]:
    return [ref.name for ref, _ in applicable(in_force(*texts), inputs(**changes), AT)]


def needs(*texts: str, **changes: Any) -> Needs:
    return needs_at(in_force(*texts), inputs(**changes))


# -- matching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "changes", "applies"),
    [
        ({"transition": {}}, {}, True),
        ({"transition": {"to": "Production"}}, {}, True),
        ({"transition": {"to": "Staging"}}, {}, False),
        ({"transition": {"from": "Staging", "to": "Production"}}, {}, True),
        ({"transition": {"from": "Archived"}}, {}, False),
        ({"transition": {"from": "staging", "to": "production"}}, {}, True),  # the registry takes any capitals, too
        ({"transition": {"to": "Production"}}, {"request": {"to": "PRODUCTION"}}, True),
        ({"transition": {}}, {"request": {"kind": "rollback"}}, False),
        ({"transition": {"kind": "rollback"}}, {"request": {"kind": "rollback"}}, True),
        ({"transition": {"kind": "any"}}, {"request": {"kind": "rollback"}}, True),
        ({"transition": {"kind": "any"}}, {"request": {"kind": "alias"}}, True),
        ({"transition": {"kind": "any"}}, {"request": {"kind": "policy"}}, False),
        ({"transition": {"kind": "policy"}}, {"request": {"kind": "policy"}}, True),
        ({"transition": {"to": "Production"}}, {"request": {"kind": "alias", "to": "@champion"}}, False),
        ({"transition": {"kind": "alias", "to": "@champion"}}, {"request": {"kind": "alias", "to": "@champion"}}, True),
        ({"transition": {"kind": "alias", "to": "@champion"}}, {"request": {"kind": "alias", "to": "@next"}}, False),
        ({"transition": {"kind": "alias", "to": "@Champion"}}, {"request": {"kind": "alias", "to": "@champion"}}, True),
        ({"transition": {}, "workspaces": ["def*"]}, {}, True),
        ({"transition": {}, "workspaces": ["team-?", "other"]}, {}, False),
        ({"transition": {}, "models": ["churn", "fr*"]}, {}, True),
        ({"transition": {}, "models": ["Fraud"]}, {}, False),
        ({"transition": {}, "models": ["f[a-r]aud"]}, {}, True),
        ({"transition": {}, "tags": {"risk": "high"}}, {}, False),
        ({"transition": {}, "tags": {"risk": "high"}}, {"model": {"tags": {"risk": "high", "a": "b"}}}, True),
        ({"transition": {}, "tags": {"risk": "high", "b": "c"}}, {"model": {"tags": {"risk": "high"}}}, False),
        ({"transition": {}, "when": 'model.name == "fraud"'}, {}, True),
        ({"transition": {}, "when": 'model.name == "churn"'}, {}, False),
        ({"transition": {}, "when": 'model.tags.risk == "high"'}, {}, True),  # in doubt it applies
    ],
)
def test_what_a_policy_is_about(match: dict[str, Any], changes: dict[str, Any], applies: bool) -> None:
    assert names(document("p", match), **changes) == (["p"] if applies else [])


def test_every_match_applies() -> None:
    texts = [
        document("to"),
        document("other", {"transition": {"to": "Staging"}}),
        document("named", {"transition": {"from": "Staging"}, "when": 'model.name == "fraud"'}),
        document("unnamed", {"transition": {}, "when": 'model.name == "churn"'}),
    ]
    assert names(*texts) == ["to", "named"]


def test_no_match_fails_closed() -> None:
    found = needs(document("other", {"transition": {"to": "Staging"}}))
    assert not found.matched
    assert found.policies == ()


def test_a_policy_in_doubt_applies_but_lets_nothing_through() -> None:
    doubtful = document("doubtful", {"transition": {}, "when": 'model.tags.risk == "high"'}, **asks(RISK))
    alone, both = needs(doubtful), needs(doubtful, document("sure"))
    assert (alone.matched, both.matched) == (False, True)
    assert [doubt.gate for doubt in both.doubts] == ["doubtful/when"]
    assert "cannot tell whether" in both.doubts[0].message
    assert [rule.id for rule in both.rules] == ["doubtful/risk"]


def test_a_policy_that_says_it_is_not_about_this_lets_nothing_through() -> None:
    text = document("p", {"transition": {}, "when": 'now < timestamp("2026-01-01T00:00:00Z")'})
    policies = in_force(text)
    found = needs_of(policies, inputs(), opened_at=OPENED, now=AT)
    assert (found.matched, found.doubts) == (False, ())


# -- the union ----------------------------------------------------------------------------------------------------


def test_policies_that_both_ask_are_asked_apart() -> None:
    found = needs(document("a", **asks(REVIEW)), document("b", **asks({**REVIEW, "count": 3}, RISK)))
    assert [(r.id, sorted(r.groups), r.count) for r in found.rules] == [
        ("a/review", ["reviewers"], 1),
        ("b/review", ["reviewers"], 3),
        ("b/risk", ["risk"], 1),
    ]


@pytest.mark.parametrize(
    ("fields", "rules"),
    [({}, ["p/review", "p/risk"]), ({"change_class": "standard"}, ["p/review"])],
)
def test_a_rule_with_a_condition(fields: dict[str, str], rules: list[str]) -> None:
    text = document("p", **asks(REVIEW, {**RISK, "when": 'request.change_class != "standard"'}))
    changed = {"fields": fields, "change_class": fields.get("change_class", "normal")}
    assert [rule.id for rule in needs(text, request=changed).rules] == rules


def test_a_rule_whose_condition_cannot_be_evaluated_is_asked() -> None:
    text = document("p", **asks({**RISK, "when": 'model.tags.risk == "high"'}))
    assert [rule.id for rule in needs(text).rules] == ["p/risk"]


STRICT = [
    ("authenticated_within", "signature", [{"reauthenticate_within": "5m"}, {"reauthenticate_within": "1h"}, {}], 5),
    ("valid_for", "valid_for", ["1h", "5m", None], 5),
    ("delegation", "delegation", [{"allowed": True, "max": "1h"}, {"allowed": True, "max": "5m"}], 5),
    ("delegation", "delegation", [{"allowed": True, "max": "1h"}, {}], None),
    ("delegation", "delegation", [{}, {}], None),
]


@pytest.mark.parametrize(("name", "part", "given", "minutes"), STRICT)
def test_the_strictest_of_what_is_asked_of_people(name: str, part: str, given: list[Any], minutes: int | None) -> None:
    texts = [
        document(f"p{n}", **asks(REVIEW, **({} if value is None else {part: value}))) for n, value in enumerate(given)
    ]
    expected = None if minutes is None else timedelta(minutes=minutes)
    assert getattr(needs(*texts), name) == expected
    assert getattr(needs(*reversed(texts)), name) == expected


def test_a_policy_that_asks_nobody_says_nothing_of_delegation() -> None:
    allowed = asks(REVIEW, delegation={"allowed": True, "max": "2d"})
    assert needs(document("a", **allowed), document("b")).delegation == timedelta(days=2)


def test_methods_are_those_that_all_accept() -> None:
    def signed(name: str, *methods: str) -> str:
        return document(name, **asks(REVIEW, signature={"methods": list(methods)}))

    assert needs(signed("a", "webauthn", "otp"), signed("b", "otp", "pwd")).methods == frozenset({"otp"})
    assert needs(signed("a", "webauthn"), signed("b", "otp")).methods == frozenset()  # nobody can vote
    assert needs(signed("a", "webauthn"), signed("b")).methods == frozenset({"webauthn"})
    assert needs(signed("a")).methods is None


def test_everybody_is_excluded_whom_any_policy_excludes() -> None:
    def without(name: str, *more: str) -> str:
        duties = {"exclude": ["requester", "version.author", *more]}
        return document(name, **asks(REVIEW, separation_of_duties=duties))

    found = needs(without("a", "version.committers"), without("b", "policy.last_editor"), document("c"))
    assert found.excluded == {"requester", "version.author", "version.committers", "policy.last_editor"}
    assert needs(document("c")).excluded == {"requester", "version.author"}


def test_each_policy_counts_its_own_denials() -> None:
    a = document("a", **asks(REVIEW, deny={"count": 2}))
    b = document("b", **asks(RISK, deny={"from": ["group:veto"]}))
    assert [(sorted(one.groups), one.count) for one in needs(a, b).denials] == [
        (["reviewers", "risk"], 2),
        (["veto"], 1),
    ]


def test_times() -> None:
    a = document("a", request={"expires_after": "3d"}, schedule={"min_wait": "30m"}, validity={"reapprove_every": "9d"})
    b = document("b", request={"expires_after": "2d"}, schedule={"min_wait": "2h"}, validity={"reapprove_every": "8d"})
    found = needs(a, b, document("c"))
    assert found.expires_after == timedelta(days=2)
    assert found.min_wait == timedelta(hours=2)
    assert found.reapprove_every == timedelta(days=8)
    assert len(found.schedules) == 3
    nothing = needs(document("c"))
    assert (nothing.expires_after, nothing.min_wait, nothing.reapprove_every) == (None, timedelta(0), None)


def test_steps_of_an_escalation_in_business_hours() -> None:
    ladder = [
        {"after": "4h", "business_hours": True, "do": "remind"},
        {"after": "24h", "do": "notify", "to": ["channel:ml"]},
        {"after": "48h", "do": "add_approvers", "rule": "review", "to": ["group:leads"]},
    ]
    text = document(
        "p", **asks(REVIEW), escalation=ladder, business_hours={"tz": "UTC", "from": "08:00", "to": "16:00"}
    )
    friday = datetime(2026, 1, 16, 14, tzinfo=UTC)
    policies = in_force(text)
    found = needs_of(policies, inputs(), opened_at=friday, now=friday).steps
    assert [(step.id[:-12], step.action, step.due, step.rule) for step in found] == [
        ("p/notify-24h-", "notify", friday + timedelta(hours=24), None),
        ("p/add_approvers-48h-", "add_approvers", friday + timedelta(hours=48), "p/review"),
        ("p/remind-4h-", "remind", datetime(2026, 1, 19, 10, tzinfo=UTC), None),
    ]


def test_a_step_is_known_by_what_it_says() -> None:
    def ids(*ladder: dict[str, Any], **more: Any) -> list[str]:
        text = document("p", **asks(REVIEW), escalation=list(ladder), **more)
        return [step.id for step in needs_at(in_force(text)).steps]

    remind, later = {"after": "1h", "do": "remind"}, {"after": "3h", "do": "remind"}
    notify = {"after": "1h", "do": "notify", "to": ["group:leads"]}
    assert ids(remind) != ids(later)
    assert ids(remind)[0] in ids(notify, later, remind)
    assert ids(notify) != ids({**notify, "to": ["group:risk"]})
    assert len(ids(remind, remind)) == 1
    busy = {**remind, "business_hours": True}
    assert ids(busy) != ids(busy, business_hours={"tz": "UTC", "from": "08:00", "to": "16:00"})
    assert ids(remind) == ids(remind, business_hours={"tz": "UTC", "from": "08:00", "to": "16:00"})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"gates": [{"id": "g", "cel": "now > candidate.registered_at"}]}, True),
        (asks({**REVIEW, "when": "now > candidate.registered_at"}), True),
        ({"gates": [{"id": "g", "cel": "candidate.metrics.known > 0.5"}], **asks(REVIEW)}, False),
    ],
)
def test_which_policies_name_the_time(spec: dict[str, Any], *, expected: bool) -> None:
    assert names_now(parse(document("p", **spec))) is expected
    match = {"transition": {}, "when": "now > candidate.registered_at"}
    assert names_now(parse(document("p", match, **spec)))


# -- what a request lacks -----------------------------------------------------------------------------------------

FIELDS = {
    "change_ticket": {"required": True, "pattern": "^CHG[0-9]{7}$"},
    "rollback_to": {"type": "model_version"},
    "runbook": {"type": "url"},
}


@pytest.mark.parametrize(
    ("fields", "mistakes"),
    [
        ({"change_ticket": "CHG0000001"}, []),
        ({"change_ticket": "CHG0000001", "rollback_to": "3", "runbook": "https://x.example/a", "more": "x"}, []),
        ({}, ["p: the field change_ticket is missing"]),
        ({"change_ticket": ""}, ["p: the field change_ticket is missing"]),
        ({"change_ticket": "INC1"}, ["p: the field change_ticket is not like ^CHG[0-9]{7}$"]),
        ({"change_ticket": "CHG0000001\n"}, ["p: the field change_ticket is not like ^CHG[0-9]{7}$"]),
        (
            {"change_ticket": "CHG0000001", "runbook": "javascript:alert(1)"},
            ["p: the field runbook is not an http address"],
        ),
    ],
)  # fmt: skip
def test_fields(fields: dict[str, str], mistakes: list[str]) -> None:
    assert needs(document("p", request={"fields": FIELDS}), request={"fields": fields}).mistakes == tuple(mistakes)


@pytest.mark.parametrize("value", ["latest", "0", "-1", "1.5", "2147483648", "\u0663", "9" * 1_000])
def test_what_is_no_number_of_a_version(value: str) -> None:
    text = document("p", request={"fields": FIELDS})
    found = needs(text, request={"fields": {"change_ticket": "CHG0000001", "rollback_to": value}})
    assert found.mistakes == ("p: the field rollback_to is not the number of a version",)
    assert found.rollback_to is None


@pytest.mark.parametrize(
    ("asked", "reason", "enough"),
    [
        ({}, "", True),
        ({"min_length": 20}, "", True),  # none is asked for, but a reason that is given says something
        ({"min_length": 20}, "because", False),
        ({"required": True}, " ", False),
        ({"required": True}, "x", True),
        ({"required": True, "min_length": 20}, "  " + "x" * 20, True),
        ({"required": True, "min_length": 20}, "short" + " " * 30, False),
    ],
)
def test_the_reason(asked: dict[str, Any], reason: str, enough: bool) -> None:
    found = needs(document("p", request={"reason": asked}), request={"reason": reason}).mistakes
    told = f"p: the reason must have at least {asked.get('min_length', 1)} characters"
    assert found == (() if enough else (told,))


@pytest.mark.parametrize(
    ("fields", "number"),
    [({"rollback_to": "3"}, 3), ({"rollback_to": "x"}, None), ({"rollback_to": ""}, None), ({}, None)],
)
def test_the_version_to_roll_back_to(fields: dict[str, str], number: int | None) -> None:
    assert needs(document("p"), request={"fields": fields}).rollback_to == number


FORMAL = document(
    "p",
    {"transition": {"kind": "any"}},
    request={"fields": FIELDS, "reason": {"required": True, "min_length": 99}},
    schedule={"windows": SOON, "min_wait": "3h"},
    **asks(REVIEW),
)


def test_a_rollback_that_people_approved_beforehand_is_instant() -> None:
    approved, other = [
        needs(FORMAL, request={"kind": "rollback", **told}) for told in ({"preapproved": "t-0", "reason": ""}, {})
    ]
    assert (approved.mistakes, approved.rules, approved.schedules, approved.min_wait) == ((), (), (), timedelta(0))
    assert (len(other.mistakes), len(other.rules), len(other.schedules)) == (2, 1, 1)
    assert other.min_wait == timedelta(hours=3)


def test_the_registry_has_no_form_to_fill_in() -> None:
    own = needs(FORMAL, request={"kind": "rollback", "requested_by": REGISTRY})
    assert (own.mistakes, len(own.rules), len(own.schedules)) == ((), 1, 1)


def test_evidence_of_each_type_is_wanted_once() -> None:
    a = document("a", request={"evidence": ["model_card", "fairness"]})
    b = document("b", request={"evidence": ["fairness", "pentest"]})
    assert needs(a, b).missing_evidence == ("model_card", "fairness", "pentest")
    have = {"evidence": {"fairness": {"title": "report", "url": "https://wiki.example/fairness"}}}
    assert needs(a, b, candidate=have).missing_evidence == ("model_card", "pentest")


@pytest.mark.parametrize(
    ("piece", "there"),
    [
        ({"digest": DIGEST}, True),
        ({"url": "https://wiki.example/card"}, True),
        ({"digest": DIGEST, "result": "pass"}, True),
        ({"digest": DIGEST, "result": "inconclusive"}, True),
        ({"digest": DIGEST, "result": "fail"}, False),
        ({"result": "pass"}, False),  # no file and no link: somebody's word alone
        ({"title": "a card"}, False),
    ],
)
def test_what_is_evidence(piece: dict[str, Any], there: bool) -> None:
    text = document("p", request={"evidence": ["card"]})
    assert needs(text, candidate={"evidence": {"card": piece}}).missing_evidence == (() if there else ("card",))


# -- gates --------------------------------------------------------------------------------------------------------


def test_a_gate_takes_what_it_does_not_say_from_the_defaults() -> None:
    defaults = {
        "level": "warn",
        "on_error": "inconclusive",
        "on_no_baseline": "pass",
        "timeout": "10m",
        "asks": ["group:leads"],
    }
    said = {"level": "block", "on_error": "fail", "on_no_baseline": "fail", "timeout": "500ms", "asks": []}
    own = {key: value for key, value in HOOK.items() if key != "timeout"} | {"id": "b", **said}
    text = document("p", gates=[{"id": "a", "cel": "true"}, own], gate_defaults=defaults)
    a, b = needs(text).gates
    assert (a.blocks, a.spec.on_error, a.spec.on_no_baseline, a.timeout, a.asks) == (
        False,
        "inconclusive",
        "pass",
        timedelta(minutes=10),
        frozenset({"leads"}),
    )
    assert (b.blocks, b.spec.on_error, b.spec.on_no_baseline, b.timeout, b.asks) == (
        True,
        "fail",
        "fail",
        timedelta(milliseconds=500),
        frozenset(),
    )


def test_those_of_the_rules_are_asked_where_a_gate_names_nobody() -> None:
    gates = [
        {"id": "a", "cel": "true"},
        {"id": "b", "cel": "true", "asks": ["group:leads"]},
        {"id": "c", "cel": "true", "waivable_by": ["group:leads"]},
        {"id": "d", "cel": "true", "asks": []},
        {"id": "e", "cel": "true", "never_skip": True},
    ]
    leads, rules = frozenset({"leads"}), frozenset({"reviewers", "risk"})
    found = needs(document("p", gates=gates, **asks(REVIEW, RISK)), document("q", **asks(REVIEW))).gates
    assert [gate.may_pass_by("inconclusive") for gate in found] == [(rules,), (leads,), (leads,), (), ()]
    assert [gate.may_pass_by("fail") for gate in found] == [(), (), (leads,), (), ()]


def test_a_gate_that_is_never_skipped_blocks_whatever_the_defaults() -> None:
    gate = {"id": "g", "cel": "true", "never_skip": True}
    (found,) = needs(document("p", gates=[gate], gate_defaults={"level": "warn", "asks": ["group:leads"]})).gates
    assert found.blocks
    assert found.never_skipped
    assert found.asks == frozenset()


def test_an_unsafe_artifact_is_waived_only_by_whom_every_policy_names() -> None:
    a = document("a", unsafe_artifact={"waivable_by": ["group:security"]})
    b = document("b", unsafe_artifact={"waivable_by": ["group:risk", "group:legal"]})
    unsafe = {"unsafe": True}
    (both,) = needs(a, b, candidate=unsafe).gates
    assert (both.id, both.waivers) == (UNSAFE_GATE, (frozenset({"security"}), frozenset({"risk", "legal"})))
    assert both.never_skipped
    (alone,) = needs(a, document("c"), candidate=unsafe).gates
    assert alone.waivers == ()  # one policy names nobody
    assert needs(a, b).gates == ()


# -- emergencies --------------------------------------------------------------------------------------------------


def emergency(*given: dict[str, Any] | None) -> Emergency | None:
    texts = [document(f"p{n}", **({"break_glass": one} if one else {})) for n, one in enumerate(given)]
    return needs(*texts).emergency


WIDE: dict[str, Any] = {
    "allowed": ["group:oncall", "group:leads"],
    "skips": ["approvals", "schedule", "gates"],
    "page": ["group:risk"],
    "grants_for": "4h",
    "review": {"from": ["group:risk", "group:audit"], "within": "2 business days", "on_overdue": ["page"]},
}
NARROW: dict[str, Any] = {
    "allowed": ["group:oncall"],
    "skips": ["approvals"],
    "reason": {"min_length": 30},
    "reauthenticate_within": "1m",
    "page": ["service:pager", "group:risk"],
    "grants_for": "1h",
    "review": {"from": ["group:audit", "group:board"], "count": 3, "within": "12h"},
}


def test_the_narrowest_emergency() -> None:
    found = emergency(WIDE, NARROW)
    assert found is not None
    assert found.allowed == (frozenset({"oncall", "leads"}), frozenset({"oncall"}))  # one person must be in both
    assert found.skips == {"approvals"}
    assert found.min_reason == 30
    assert found.within == timedelta(minutes=1)
    assert found.page == ("group:risk", "service:pager")
    assert found.grants_for == timedelta(hours=1)
    assert (found.review, found.review_count) == (frozenset({"audit"}), 3)
    assert found.review_by(AT) == AT + timedelta(hours=12)
    assert found.on_overdue == ("page", "freeze_model")


def test_a_review_in_business_days() -> None:
    found = emergency(WIDE)
    assert found is not None
    friday = datetime(2026, 1, 16, 16, tzinfo=UTC)
    assert found.review_by(friday) == datetime(2026, 1, 20, 16, tzinfo=UTC)
    assert found.on_overdue == ("page",)


def test_no_emergency_where_one_policy_knows_none() -> None:
    assert emergency(WIDE, None) is None
    assert emergency(None) is None


def test_no_emergency_that_skips_nothing() -> None:
    assert emergency(NARROW, {**WIDE, "skips": ["schedule"]}) is None


def test_without_reauthentication_nobody_has_to() -> None:
    found = emergency({**WIDE, "reauthenticate": False})
    assert found is not None
    assert found.within is None


def test_what_is_asked_is_asked_at_that_time() -> None:
    """Conditions may look at the clock."""
    text = document("p", PRODUCTION, **asks({**RISK, "when": 'now > timestamp("2026-01-14T12:00:00Z")'}))
    policies = in_force(text)
    asked = [
        len(needs_of(policies, inputs(), opened_at=OPENED, now=at).rules) for at in (AT, AT + timedelta(seconds=1))
    ]
    assert asked == [0, 1]
