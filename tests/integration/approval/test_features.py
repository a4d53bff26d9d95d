"""Every row of the two columns of the feature table (`must`, `beyond`) by its name, on a real database.

Signatures over HTTP, evidence, external checks, revocation and the offline judge have test modules of their own too.
"""

import json
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.crowd import waiting_for

from approval import copies, standing, views
from approval.api.documents import manifest
from approval.domain import Request
from contracts.approval import ApprovalLapsed, Choice, RequestEscalated, ReviewOverdue
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Dataset, Evaluation, Finding, Inspection, Severity
from contracts.registry import VersionEvaluated, VersionVerified
from kit.problems import Problem
from policy.case import Ballot

pytestmark = pytest.mark.asyncio(loop_scope="module")
APPROVE = Ballot(Choice.APPROVE)
REVIEW = {"id": "review", "meaning": "I reviewed it", "from": ["group:reviewers"], "count": 1}
RISK = {"id": "risk", "meaning": "I accept the risk", "from": ["group:risk"], "count": 1}
GOOD = {"id": "good", "cel": "candidate.metrics.accuracy >= 0.9"}


def document(name: str = "here", **spec: Any) -> str:
    """A policy about Production, for the model m."""
    given = {"match": {"transition": {"to": "Production"}, "models": ["m"]}, **spec}
    return json.dumps({"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": given})


def approvals(*rules: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"approvals": {"rules": [*rules], **given}}


@pytest_asyncio.fixture(loop_scope="module")
async def only(direct: Direct) -> Direct:
    """A service whose shipped policy about Production asks nobody."""
    await direct.publish(
        json.dumps(
            {
                "kind": "PromotionPolicy",
                "metadata": {"name": "production"},
                "spec": {"match": {"transition": {"to": "Production"}, "models": ["unused"]}},
            }
        )
    )
    return direct


async def asked(direct: Direct, version: int = 1, *, by: str = "ana", accuracy: float = 0.95, **given: Any) -> str:
    """Opens a request for Production; gives its id."""
    if ("m", version) not in direct.registry.versions:
        await direct.registry.register("m", version, accuracy=accuracy)
    return transition_id(await direct.registry.request("m", version, by=by, **given))


async def vote(
    direct: Direct, request_id: str, who: str, *groups: str, choice: str = "approve", comment: str = "no", **given: Any
) -> Request:
    behalf = given.pop("on_behalf_of", None)
    person = await direct.person(who, *groups, **given)
    return await direct.parts.people.vote(request_id, person, Ballot(Choice(choice), comment), behalf)


async def refused(direct: Direct, request_id: str, who: str, *groups: str, **given: Any) -> str:
    """The code of the refusal."""
    with pytest.raises(Problem) as caught:
        await vote(direct, request_id, who, *groups, **given)
    return caught.value.code


async def status(direct: Direct, request_id: str) -> str:
    return (await direct.request(request_id)).status


async def phase(direct: Direct, request_id: str) -> str:
    async with direct.db.snapshot() as tx:
        request = await views.request(tx, request_id)
        assert request is not None
        return (await direct.parts.desk.sights.of(tx, request, await direct.clock(tx))).found.phase


async def noted(direct: Direct, request_id: str) -> tuple[str, list[str]]:
    """The phase that is stored, and what the inbox of the leads holds."""
    async with direct.db.snapshot() as tx:
        row = (await standing.of_requests(tx, [request_id]))[request_id]
        inbox = await waiting_for(tx, ["leads"], "lea", limit=10)
    return row.phase, [found for _, found in inbox]


# -- quorum, groups ----------------------------------------------------------------------------------------------


async def test_must_quorum_n_of_group_and_all_rules(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2}, RISK)))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    await vote(only, request, "rita", "risk")
    assert await status(only, request) == "open"
    assert (await vote(only, request, "bo", "reviewers")).status == "approved"


async def test_beyond_quorum_rules_with_when_and_one_person_counts_for_one_rule(only: Direct) -> None:
    rules = [REVIEW, {**RISK, "from": ["group:risk", "group:reviewers"], "when": 'request.change_class != "standard"'}]
    await only.publish(document(**approvals(*rules)))
    await only.registry.register("m", 1, accuracy=0.95)
    envelope = await only.registry.request("m")
    normal = transition_id(envelope)
    await vote(only, normal, "ben", "reviewers", "risk")
    assert await status(only, normal) == "open"  # ben is in both groups, and counts once
    assert await refused(only, normal, "ben", "reviewers", "risk", choice="reject") == "already-voted"
    assert (await vote(only, normal, "rita", "risk")).status == "approved"
    await only.registry.changed(envelope)
    standard = await asked(only, fields={"change_class": "standard"})
    assert (await vote(only, standard, "ben", "reviewers")).status == "approved"


# -- separation of duties ----------------------------------------------------------------------------------------


async def test_must_separation_of_duties_requester_is_not_approver(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only, by="ben")
    assert await refused(only, request, "ben", "reviewers") == "own-request"


async def test_beyond_separation_of_duties_author_committers_policy_editor_and_services(only: Direct) -> None:
    exclude = ["requester", "version.author", "version.committers", "policy.last_editor"]
    await only.publish(document(**approvals(REVIEW, separation_of_duties={"exclude": exclude})))
    await only.registry.register("m", 1, by="carl", committers=("Cora@example.org", "cem"), accuracy=0.95)
    request = await asked(only)
    for who, given, code in (
        ("carl", {}, "own-version"),
        ("cem", {}, "own-commits"),
        ("cora", {"email": "cora@example.org"}, "own-commits"),
        ("root", {}, "own-policy"),
        ("bot", {"person": False}, "service-account"),
    ):
        assert await refused(only, request, who, "reviewers", **given) == code
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"


async def test_beyond_separation_of_duties_is_checked_again_at_the_decision(only: Direct) -> None:
    """Ben leaves the group after he voted, before the last vote."""
    await only.publish(document(**approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    await only.parts.directory.tell("ben", frozenset({"elsewhere"}), person=True, by="the directory")
    await vote(only, request, "bo", "reviewers")
    assert await status(only, request) == "open"
    assert (await vote(only, request, "bea", "reviewers")).status == "approved"


# -- binding -----------------------------------------------------------------------------------------------------


async def test_must_binding_approval_names_the_version(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    decided = await vote(only, await asked(only), "ben", "reviewers")
    assert decided.decision is not None
    known = only.registry.versions["m", 1]
    assert (decided.decision.version, decided.decision.digest) == (1, known.digest)


async def test_beyond_binding_any_change_voids_the_votes_visibly(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    before = await vote(only, request, "ben", "reviewers")
    evaluation = Evaluation(dataset=Dataset(name="may"), metrics={"auc": 0.8}, evaluated_at=before.opened_at)
    event = VersionEvaluated(workspace="default", model="m", version=1, evaluation=evaluation)
    await only.registry.publish(event, "m", 1)
    after = await only.request(request)
    assert after.request_digest != before.request_digest
    assert (after.votes, [past.vote.voter for past in after.past_votes]) == ((), ["ben"])
    assert "candidate: evaluated_at, evaluations" in after.past_votes[0].why
    stale = Ballot(Choice.APPROVE, request_digest=before.request_digest)
    with pytest.raises(Problem, match="not the request you saw"):
        await only.parts.people.vote(request, await only.person("bo", "reviewers"), stale)
    await only.publish(document(**approvals(REVIEW)))  # the policy changes too: the sweeper binds it anew
    await only.sweep()
    bound = await only.request(request)
    assert bound.policies[0].revision == 2
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"


# -- veto --------------------------------------------------------------------------------------------------------


async def test_must_veto_closes(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    assert (await vote(only, request, "bo", "reviewers", choice="reject")).status == "rejected"


async def test_beyond_veto_needs_a_reason_and_its_count_is_configurable(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW, deny={"count": 2, "from": ["group:risk"]})))
    request = await asked(only)
    assert await refused(only, request, "rita", "risk", choice="reject", comment=" ") == "comment-required"
    assert await refused(only, request, "ben", "reviewers", choice="reject") == "not-an-approver"
    assert (await vote(only, request, "rita", "risk", choice="reject")).status == "open"
    assert (await vote(only, request, "rolf", "risk", choice="reject")).status == "rejected"


# -- delegation --------------------------------------------------------------------------------------------------


async def delegating(direct: Direct, delegator: str, *groups: str, to: str, days: int = 7) -> str:
    person = await direct.person(delegator, *groups)
    async with direct.db.transaction() as tx:
        now = await direct.clock(tx)
        await direct.parts.directory.seen(tx, person, now)
    ends = now + timedelta(days=days)
    granted = await direct.parts.directory.grant(delegator, to, None, ends, "holidays", by=delegator)
    return str(granted.delegation_id)


async def test_must_delegation_by_a_dated_delegate(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW, delegation={"allowed": True, "max": "14d"})))
    await delegating(only, "ben", "reviewers", to="dora")
    request = await asked(only)
    assert await refused(only, request, "dora", "leads") == "not-an-approver"  # in her own name she may not
    decided = await vote(only, request, "dora", "leads", on_behalf_of="ben")
    assert decided.status == "approved"
    await only.later(days=8)
    late = await asked(only)
    assert await refused(only, late, "dora", "leads", on_behalf_of="ben") == "no-delegation"


async def test_beyond_delegation_depth_one_never_to_the_excluded_and_shown(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW, delegation={"allowed": True, "max": "14d"})))
    await delegating(only, "ben", "reviewers", to="dora")
    await delegating(only, "dora", "leads", to="emil")
    await delegating(only, "ben", "reviewers", to="ana")
    long = await delegating(only, "bo", "reviewers", to="dora", days=30)
    request = await asked(only)
    assert await refused(only, request, "emil", "leads", on_behalf_of="dora") == "not-an-approver"  # depth 1
    assert await refused(only, request, "emil", "leads", on_behalf_of="ben") == "no-delegation"
    assert await refused(only, request, "ana", on_behalf_of="ben") == "own-request"
    assert await refused(only, request, "dora", "leads", on_behalf_of="bo") == "delegation-too-long"
    decided = await vote(only, request, "dora", "leads", on_behalf_of="ben")
    assert [(v.voter, v.on_behalf_of) for v in decided.votes] == [("dora", "ben")]
    assert "dora for ben: approve" in manifest(decided)
    ended = await only.parts.directory.end(long, "bo")
    assert ended.ended_by == "bo"


async def test_beyond_delegation_needs_the_policys_leave(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    await delegating(only, "ben", "reviewers", to="dora")
    assert await refused(only, await asked(only), "dora", on_behalf_of="ben") == "delegation-not-allowed"


# -- timeouts ----------------------------------------------------------------------------------------------------


async def test_must_timeouts_expiry(only: Direct) -> None:
    await only.publish(document(request={"expires_after": "30m"}, **approvals(REVIEW)))
    request = await asked(only)
    await only.later(minutes=31)
    found = await only.request(request)
    assert found.status == "expired"
    assert found.decision is not None  # the registry would still wait: it gets a signed refusal


async def test_beyond_timeouts_reminders_escalation_and_added_approvers(only: Direct) -> None:
    ladder = [
        {"after": "4h", "do": "remind"},
        {"after": "24h", "do": "notify", "to": ["group:leads"]},
        {"after": "48h", "do": "add_approvers", "rule": "review", "to": ["group:risk"]},
    ]
    await only.publish(document(escalation=ladder, **approvals(REVIEW)))
    request = await asked(only, expires_in=80 * 3600)
    assert await refused(only, request, "rita", "risk") == "not-an-approver"
    for hours, actions in ((3, 0), (2, 1), (20, 2), (24, 3)):
        await only.later(hours=hours)
        assert len((await only.request(request)).escalated) == actions
    steps = [(e.action, e.to) for e in (await only.request(request)).escalated]
    assert steps == [
        ("remind", ("group:reviewers",)),
        ("notify", ("group:leads",)),
        ("add_approvers", ("group:risk",)),
    ]
    assert (await vote(only, request, "rita", "risk")).status == "approved"
    types = await only.types("default/m")
    assert types.count(RequestEscalated.TYPE.removeprefix("hallmark.").removesuffix(".v1")) == 3


async def test_beyond_timeouts_an_approval_expires_before_it_is_carried_out(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2}, valid_for="1d")))
    request = await asked(only, expires_in=80 * 3600)
    await vote(only, request, "ben", "reviewers")
    await only.later(hours=25)
    assert (await vote(only, request, "bo", "reviewers")).status == "open"
    assert (await vote(only, request, "bea", "reviewers")).status == "approved"


# -- gates -------------------------------------------------------------------------------------------------------


async def test_must_gates_before_people_are_asked(only: Direct) -> None:
    await only.publish(document(gates=[GOOD], **approvals(REVIEW)))
    found = await only.request(await asked(only, accuracy=0.5))
    assert (found.status, found.votes) == ("rejected", ())


async def test_beyond_gates_inconclusive_asks_and_waivers_are_signed(only: Direct) -> None:
    gates = [
        {"id": "better", "cel": "candidate.metrics.accuracy > baseline.metrics.accuracy", "asks": ["group:risk"]},
        {"id": "latency", "cel": "candidate.metrics.p95 < 100.0", "waivable_by": ["group:leads"]},
        {"id": "hint", "cel": "candidate.metrics.f1 > 0.5", "level": "warn"},
    ]
    await only.publish(document(gates=gates, **approvals(REVIEW)))
    request = await asked(only)
    found = await only.request(request)
    said = {gate.gate: gate.result for gate in found.gates}
    assert said == {"here/better": "inconclusive", "here/latency": "error", "here/hint": "error"}
    assert (found.status, await phase(only, request)) == ("open", "gates")
    people = only.parts.people
    with pytest.raises(Problem) as caught:
        await people.waive(request, await only.person("ben", "reviewers"), "here/latency", "because", None)
    assert caught.value.code == "not-entitled"
    with pytest.raises(Problem) as caught:
        await people.waive(request, await only.person("ana", "leads"), "here/latency", "because", None)
    assert caught.value.code == "own-request"
    await people.waive(request, await only.person("lea", "leads"), "here/latency", "measured by hand", None)
    await people.waive(request, await only.person("rita", "risk"), "here/better", "it is the first", None)
    assert await phase(only, request) == "people"
    decided = await vote(only, request, "ben", "reviewers")
    assert decided.decision is not None
    assert {w.by: w.gate for w in decided.decision.waived} == {"lea": "here/latency", "rita": "here/better"}
    assert {g.gate: g.result for g in decided.decision.gates}["here/latency"] == "waived"


async def test_beyond_gates_never_skip_is_never_waived(only: Direct) -> None:
    await only.publish(document(gates=[{**GOOD, "never_skip": True}], **approvals(REVIEW)))
    assert await status(only, await asked(only, accuracy=0.1)) == "rejected"


async def test_beyond_gates_an_unsafe_artifact_is_waived_by_name(only: Direct) -> None:
    await only.publish(document(unsafe_artifact={"waivable_by": ["group:security"]}, **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    known = only.registry.versions["m", 1]
    found = Finding(severity=Severity.UNSAFE, code="pickle", detail="it runs code")
    verified = VersionVerified(
        workspace="default",
        model="m",
        version=1,
        digest=known.digest,
        artifact_digest=known.content.artifact.digest,
        inspection=Inspection(scanner="test", findings=(found,)),
    )
    await only.registry.publish(verified, "m", 1)
    request = await asked(only)
    assert await phase(only, request) == "gates"
    sec = await only.person("sue", "security")
    await only.parts.people.waive(request, sec, "registry/unsafe-artifact", "sandboxed", None)
    decided = await vote(only, request, "ben", "reviewers")
    assert decided.decision is not None
    assert decided.decision.waivers == ("unsafe-artifact",)


# -- withdraw and revoke -----------------------------------------------------------------------------------------


async def test_must_withdraw_a_vote_until_it_is_carried_out(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    for _ in range(2):
        found = await only.parts.people.withdraw(request, await only.person("ben", "reviewers"), "I was wrong")
    assert (found.votes, found.past_votes[0].why) == ((), "withdrawn: I was wrong")
    await vote(only, request, "bo", "reviewers")
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"
    with pytest.raises(Problem) as caught:
        await only.parts.people.withdraw(request, await only.person("ben", "reviewers"), "too late")
    assert caught.value.code == "request-closed"


async def test_beyond_revoke_a_version_after_it_was_let_in(only: Direct) -> None:
    fields = {"rollback_to": {"required": True, "type": "model_version"}}
    await only.publish(document(request={"fields": fields}, **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    await asked(only, 2, fields={"rollback_to": "1"})
    envelope = await only.registry.request("m", 2, fields={"rollback_to": "1"})
    decided = await vote(only, transition_id(envelope), "ben", "reviewers")
    assert decided.decision is not None
    assert decided.decision.rollback_to == 1
    # The registry may have carried it out before that is heard here.
    early = await only.parts.revocations.revoke("default", "m", 2, by="olga", reason="it leaks keys")
    assert early.revocation.fallback == 1
    await only.registry.changed(envelope)
    # What was approved for it elsewhere, or never carried out, says nothing of where it stands.
    await only.publish(document("champion", match={"transition": {"kind": "alias", "to": "@champion"}}))
    alias: dict[str, Any] = {"to": "@champion", "kind": TransitionKind.ALIAS, "fields": {"rollback_to": "7"}}
    assert await status(only, transition_id(await only.registry.request("m", 2, **alias))) == "approved"
    ordered = await only.parts.revocations.revoke("default", "m", 2, by="olga", reason="it leaks data")
    assert (ordered.revocation.fallback, ordered.revocation.version) == (1, 2)


async def test_beyond_reapproval_every_so_often(only: Direct) -> None:
    await only.publish(document(validity={"reapprove_every": "180d"}, **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    envelope = await only.registry.request("m", 1)
    await vote(only, transition_id(envelope), "ben", "reviewers")
    await only.registry.changed(envelope)
    await only.later(days=179)
    assert (await only.request(transition_id(envelope))).lapsed is None
    await only.later(days=2)
    lapsed = (await only.request(transition_id(envelope))).lapsed
    assert isinstance(lapsed, ApprovalLapsed)
    assert lapsed.on_lapse == "alert"


# -- schedule ----------------------------------------------------------------------------------------------------


async def test_must_schedule_windows_and_freezes(only: Direct) -> None:
    async with only.db.snapshot() as tx:
        now = await only.clock(tx)
    freeze = {
        "name": "year end",
        "tz": "UTC",
        "from": (now - timedelta(hours=1)).isoformat(timespec="seconds"),
        "to": (now + timedelta(hours=2)).isoformat(timespec="seconds"),
    }
    await only.publish(document(schedule={"freezes": [freeze]}, **approvals(REVIEW)))
    request = await asked(only, expires_in=80 * 3600)
    await vote(only, request, "ben", "reviewers")
    assert (await status(only, request), await phase(only, request)) == ("open", "schedule")
    await only.later(hours=1)
    assert await status(only, request) == "open"
    await only.later(hours=2)
    assert await status(only, request) == "approved"


async def test_beyond_schedule_approve_now_execute_in_the_window(only: Direct) -> None:
    async with only.db.snapshot() as tx:
        start = await only.clock(tx) + timedelta(hours=3)
    hours = {"from": start.strftime("%H:%M"), "to": (start + timedelta(hours=1)).strftime("%H:%M")}
    await only.publish(document(schedule={"windows": [{"tz": "UTC", **hours}], "min_wait": "30m"}, **approvals(REVIEW)))
    request = await asked(only, expires_in=80 * 3600)
    await vote(only, request, "ben", "reviewers")
    assert await phase(only, request) == "schedule"
    withdrawn = await only.parts.people.withdraw(request, await only.person("ben", "reviewers"), "")
    assert withdrawn.votes == ()  # until it is carried out
    await vote(only, request, "bo", "reviewers")
    await only.later(hours=2)
    assert await status(only, request) == "open"
    await only.later(hours=1, minutes=30)
    assert await status(only, request) == "approved"


# -- break-glass -------------------------------------------------------------------------------------------------

GLASS = {
    "allowed": ["group:oncall"],
    "skips": ["approvals", "schedule", "gates"],
    "reason": {"required": True, "min_length": 10},
    "page": ["service:oncall", "group:risk"],
    "grants_for": "4h",
    "review": {"from": ["group:risk"], "count": 2, "within": "2d", "on_overdue": ["page", "freeze_model"]},
}


async def test_must_break_glass_by_an_allowed_group_with_a_reason(only: Direct) -> None:
    await only.publish(document(gates=[GOOD], break_glass=GLASS, **approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    breaking = only.parts.emergencies.break_glass
    for who, groups, reason, code in (
        ("ben", "reviewers", "production is down", "not-entitled"),
        ("otto", "oncall", "down", "reason-required"),
    ):
        with pytest.raises(Problem) as caught:
            await breaking(request, await only.person(who, groups), reason)
        assert caught.value.code == code
    found = await breaking(request, await only.person("otto", "oncall"), "production is down")
    assert found.decision is not None
    assert (found.status, found.decision.break_glass is not None) == ("approved", True)


async def test_beyond_break_glass_fresh_authentication_never_skip_and_review(only: Direct) -> None:
    latency = {"id": "latency", "cel": "candidate.metrics.p95 < 1.0", "waivable_by": ["group:leads"]}
    waivable = [{**GOOD, "never_skip": True}, latency]
    await only.publish(document(gates=waivable, break_glass=GLASS, **approvals(REVIEW)))
    request = await asked(only, expires_in=80 * 3600)
    breaking = only.parts.emergencies.break_glass
    async with only.db.snapshot() as tx:
        old = await only.clock(tx) - timedelta(minutes=6)
    with pytest.raises(Problem) as caught:
        await breaking(request, await only.person("otto", "oncall", authenticated_at=old), "production is down")
    assert caught.value.code == "authentication-too-old"
    found = await breaking(request, await only.person("otto", "oncall"), "production is down")
    assert (found.status, found.glass and found.glass.page) == ("approved", ("service:oncall", "group:risk"))
    # Nobody looks in time: the people are told again, and the model is frozen, rollbacks apart.
    await only.later(days=2, hours=1)
    overdue = (await only.request(request)).overdue
    assert isinstance(overdue, ReviewOverdue)
    assert overdue.frozen
    held = await asked(only, 2, expires_in=80 * 3600)
    assert await noted(only, held) == ("frozen", [])
    with pytest.raises(Problem, match="frozen"):
        await breaking(held, await only.person("olaf", "oncall"), "production is down")
    reviewing = only.parts.emergencies.review
    with pytest.raises(Problem) as caught:
        await reviewing(request, await only.person("otto", "risk"), justified=True, comment="it was")
    assert caught.value.code == "own-request"
    for who in ("rita", "rolf"):
        found = await reviewing(request, await only.person(who, "risk"), justified=True, comment="it was")
    assert found.reviewed
    await only.sweep()
    assert await noted(only, held) == ("gates", [held])


async def test_beyond_break_glass_is_time_boxed(only: Direct) -> None:
    glass = {**GLASS, "skips": ["approvals"]}
    gates = [{"id": "latency", "cel": "candidate.metrics.p95 < 1.0", "waivable_by": ["group:leads"]}]
    await only.publish(document(gates=gates, break_glass=glass, **approvals(REVIEW)))
    request = await asked(only, expires_in=80 * 3600)
    await only.parts.emergencies.break_glass(request, await only.person("otto", "oncall"), "production is down")
    assert await status(only, request) == "open"  # the gate is not among what it skips
    await only.later(hours=5)
    await only.parts.people.waive(request, await only.person("lea", "leads"), "here/latency", "fine", None)
    assert await phase(only, request) == "people"


# -- policy as code ----------------------------------------------------------------------------------------------


async def test_must_policy_as_code_is_validated(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    with pytest.raises(ValueError, match=r"line 1.*count"):
        await direct.parts.revisions.propose(document(**approvals({**REVIEW, "count": 0})), "root")


async def test_beyond_policy_as_code_a_change_is_a_request_under_the_old_policy(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    proposed = await direct.parts.revisions.propose(document(**approvals(RISK)), "root", "more care")
    assert proposed.request is not None
    opened = proposed.request
    assert (opened.status, opened.kind, opened.policies[0].name) == ("open", "policy", "policy-changes")
    assert await refused(direct, opened.request_id, "root", "admins") == "own-request"
    assert await refused(direct, opened.request_id, "ben", "reviewers") == "not-an-approver"
    before = await asked(direct)
    assert [ref.name for ref in (await direct.request(before)).policies] == ["production"]
    assert (await vote(direct, opened.request_id, "vera", "admins")).status == "approved"
    after = await asked(direct)
    assert [ref.name for ref in (await direct.request(after)).policies] == ["here", "production"]
    # The policy about policies changes under itself, and cannot be made to match nothing.
    lock = document("policy-changes", match={"transition": {"kind": "policy"}, "models": ["nothing"]})
    with pytest.raises(Problem) as caught:
        await direct.parts.revisions.propose(lock, "root")
    assert caught.value.code == "policies-locked"


# -- signature ---------------------------------------------------------------------------------------------------


async def test_must_signature_who_and_when(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    [signed] = (await vote(only, await asked(only), "ben", "reviewers")).votes
    assert (signed.voter, signed.auth_method) == ("ben", "token")


async def test_beyond_signature_meaning_step_up_and_manifest(only: Direct) -> None:
    signature = {"reauthenticate_within": "5m", "methods": ["webauthn"]}
    await only.publish(document(**approvals(REVIEW, signature=signature)))
    request = await asked(only)
    async with only.db.snapshot() as tx:
        old = await only.clock(tx) - timedelta(minutes=6)
    strong: dict[str, Any] = {"method": "webauthn"}
    assert await refused(only, request, "ben", "reviewers") == "authentication-too-weak"
    assert await refused(only, request, "ben", "reviewers", authenticated_at=old, **strong) == "authentication-too-old"
    decided = await vote(only, request, "ben", "reviewers", **strong)
    text = manifest(decided)
    for part in ("ben: approve", "meaning: I reviewed it", "by webauthn", decided.request_digest):
        assert part in text


# -- rollback ----------------------------------------------------------------------------------------------------


async def test_must_rollback_is_decided_again(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", 1, accuracy=0.95)
    never = await direct.registry.request("m", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    assert await status(direct, transition_id(never)) == "rejected"  # it has never been there


async def test_must_rollback_by_the_shipped_policy_asks_nobody(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", 1, accuracy=0.95)
    first = await direct.registry.request("m", 1)
    await vote(direct, transition_id(first), "ben", "reviewers")
    await direct.registry.changed(first)
    back = await direct.registry.request("m", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    found = await direct.request(transition_id(back))
    assert (found.status, found.votes) == ("approved", ())


async def let_in(direct: Direct, version: int, **given: Any) -> str:
    if ("m", version) not in direct.registry.versions:
        await direct.registry.register("m", version, accuracy=0.95)
    envelope = await direct.registry.request("m", version, **given)
    assert (await vote(direct, transition_id(envelope), "ben", "reviewers")).status == "approved"
    await direct.registry.changed(envelope)
    return transition_id(envelope)


async def test_beyond_rollback_to_the_pre_approved_target_asks_nobody(only: Direct) -> None:
    """Though the policy about rollbacks asks people, and makes them wait."""
    back = {"match": {"transition": {"kind": "rollback"}}, "schedule": {"min_wait": "1h"}}
    await only.publish(document(**approvals(REVIEW)))
    await only.publish(document("back", **back, **approvals(RISK)))
    await let_in(only, 1)
    await let_in(only, 2, fields={"rollback_to": "1"})
    asked_for: dict[str, Any] = {"from_": Stage.ARCHIVED, "kind": TransitionKind.ROLLBACK}
    envelope = await only.registry.request("m", 1, **asked_for)
    found = await only.request(transition_id(envelope))
    assert found.decision is not None
    assert (found.status, found.votes) == ("approved", ())
    beforehand = found.inputs["request"]["preapproved"]
    assert found.decision.reason == f"approved beforehand, with request {beforehand}"
    assert (await only.request(beforehand)).inputs["candidate"]["version"] == 2
    await only.registry.changed(envelope)
    # With no word of where to go back to, or of another version, people are asked.
    await let_in(only, 3)
    await let_in(only, 4, fields={"rollback_to": "2"})
    other = transition_id(await only.registry.request("m", 1, **asked_for))
    assert (await status(only, other), await phase(only, other)) == ("open", "people")
    await let_in(only, 5)
    unsaid = transition_id(await only.registry.request("m", 4, **asked_for))
    assert (await status(only, unsaid), await phase(only, unsaid)) == ("open", "people")


async def test_beyond_evidence_of_required_types_holds_the_request(only: Direct) -> None:
    await only.publish(document(request={"evidence": ["model_card"]}, **approvals(REVIEW)))
    request = await asked(only)
    assert await phase(only, request) == "gates"
    async with only.db.snapshot() as tx:
        assert await copies.evidence(tx, "default", "m", 1) == []
