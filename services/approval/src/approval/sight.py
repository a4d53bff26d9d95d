"""What a request is judged by at one moment, and what is put on record of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, views
from approval.domain import Request
from approval.members import Known
from contracts.access import Action
from contracts.approval import Decision, GatesEvaluated, RequestOpened, Verdict, Vote
from contracts.envelope import new_id
from kit.auth import Access, Principal
from policy.holding import holds_until
from policy.needs import InForce, Needs, needs_of
from policy.outlook import Outlook, outlook
from policy.people import Member, Members, Person, why_not


@dataclass(frozen=True)
class Glance:
    """What the policies ask of a request, and who has acted on it."""

    policies: InForce
    needs: Needs
    members: Members
    at: datetime


@dataclass(frozen=True)
class Sight(Glance):
    """And where it stands. `frozen`: why its model may not be promoted now, if so."""

    frozen: str | None
    found: Outlook


class Sights:
    """`settle`: how long a complete quorum waits for a rejection that was cast at the same moment."""

    def __init__(self, access: Access, settle: timedelta) -> None:
        self._access, self._settle = access, settle

    async def of(self, tx: AsyncConnection, request: Request, at: datetime) -> Sight:
        [glance] = await self.glances(tx, [request], at)
        frozen = await views.frozen(tx, *request.place, at)
        members, settle = glance.members, self._settle
        found = outlook(request.case, glance.needs, at, members=members, settle=settle, frozen=frozen)
        return Sight(glance.policies, glance.needs, members, at, frozen, found)

    async def glances(self, tx: AsyncConnection, requests: Sequence[Request], at: datetime) -> list[Glance]:
        """Of many requests in as many queries as of one."""
        known = await views.revisions_of(tx, {ref for request in requests for ref in request.policies})
        everybody = await views.members(tx, {who for request in requests for who in request.acted})
        found = []
        for request in requests:
            policies = [(ref, known[ref]) for ref in request.policies]
            needs = needs_of(policies, request.inputs, opened_at=request.opened_at, now=at)
            acted = request.acted & everybody.keys()
            members = {who: self.member(everybody[who], request.place) for who in acted}
            found.append(Glance(policies, needs, members.get, at))
        return found

    def may(self, person: Person, action: Action, place: tuple[str, str]) -> bool:
        """Whether the access file lets somebody do it who is in these groups."""
        kind = "person" if person.person else "service"
        return self._access.allows(Principal(person.subject, person.groups, kind, 0, "record"), action, *place)

    def member(self, known: Known, place: tuple[str, str]) -> Member:
        """The groups in which somebody is now, as far as the access file lets them vote."""
        principal = Principal(known.subject, known.groups, "person" if known.person else "service", 0, "record")
        allowed = self._access.allows(principal, Action.VOTE, *place)
        return Member(known.groups if allowed else frozenset(), known.person, known.email)


def evaluated(request: Request, sight: Sight) -> GatesEvaluated:
    blocked = sight.found.phase == "gates" or (
        sight.found.verdict is Verdict.REJECTED and any(g.result not in ("pass", "waived") for g in sight.found.gates)
    )
    return GatesEvaluated(
        request_id=request.request_id,
        gates=sight.found.gates,
        passed=sight.needs.matched and not blocked,
        inputs_digest=request.inputs_digest,
    )


def decided(request: Request, opened: RequestOpened, sight: Sight, verdict: Verdict, why: str) -> Decision:
    waived = {gate.gate for gate in sight.found.gates if gate.result == "waived"}
    glass = request.glass if sight.found.emergency else None
    ends = None
    if verdict is Verdict.APPROVED:
        ends = holds_until(request.case, sight.needs, sight.at, glass=glass, members=sight.members)
    return Decision(
        **binding.transition_of(opened),
        decision_id=str(new_id()),
        verdict=verdict,
        reason=why,
        requested_by=opened.requested_by,
        policies=request.policies,
        gates=sight.found.gates,
        votes=_counting(request, sight),
        inputs_digest=request.inputs_digest,
        request_digest=request.request_digest,
        decided_at=sight.at,
        expires_at=min(request.expires_at, ends or request.expires_at),
        waivers=sight.found.waivers if verdict is Verdict.APPROVED else (),
        waived=tuple(w for w in request.waivers if w.gate in waived and w.request_digest == request.request_digest),
        rollback_to=sight.needs.rollback_to,
        break_glass=glass,
        added_approvers={rule: tuple(sorted(groups)) for rule, groups in request.added.items()},
        opened_at=request.opened_at,
        bound_at=request.bound_at,
    )


def _counting(request: Request, sight: Sight) -> tuple[Vote, ...]:
    """The votes that count now: not those of people who have left, nor any that has become too old."""
    case, needs = request.case, sight.needs
    return tuple(v for v in request.votes if why_not(case, needs, v, sight.at, sight.members) is None)
