"""What a request is judged by at one moment, and what is put on record of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, views
from approval.domain import Request
from contracts.access import Action
from contracts.approval import Decision, GatesEvaluated, RequestOpened, Verdict
from contracts.envelope import new_id
from contracts.members import Known
from kit.auth import Access, Principal
from policy.case import Member, Members, Person
from policy.holding import holds_until
from policy.matching import InForce
from policy.needs import Needs, needs_of
from policy.outlook import Outlook, Phase, holding, outlook
from policy.people import counted


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

    def waiting(self, phase: Phase, reason: str, next_at: datetime | None) -> "Sight":
        """The same, though what it has come to has to wait."""
        return replace(self, found=replace(self.found, verdict=None, phase=phase, reason=reason, next_at=next_at))


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

    def votes(self, who: Person | Known) -> frozenset[tuple[str, str]]:
        """The patterns of workspaces, and of models in them, where somebody may vote; none for a service account."""
        principal = Principal(who.subject, who.groups, "person", 0, "record")
        return self._access.grants(principal, Action.VOTE) if who.person else frozenset()

    def member(self, known: Known, place: tuple[str, str]) -> Member:
        """The groups in which somebody is now, as far as the access file lets them use those."""
        principal = Principal(known.subject, known.groups, "person" if known.person else "service", 0, "record")

        def to(action: Action) -> frozenset[str]:
            return known.groups if self._access.allows(principal, action, *place) else frozenset()

        return Member(to(Action.VOTE), known.person, known.email, to(Action.BREAK_GLASS))


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
        votes=counted(request.case, sight.needs, sight.at, sight.members),
        inputs_digest=request.inputs_digest,
        request_digest=request.request_digest,
        decided_at=sight.at,
        expires_at=min(request.expires_at, ends or request.expires_at),
        waivers=sight.found.waivers if verdict is Verdict.APPROVED else (),
        waived=holding(request.case, sight.needs, sight.found.gates, sight.members),
        rollback_to=sight.needs.rollback_to,
        break_glass=glass,
        added_approvers={rule: tuple(sorted(groups)) for rule, groups in request.added.items()},
        opened_at=request.opened_at,
        bound_at=request.bound_at,
        baseline=(request.inputs["baseline"] or {}).get("version", 0),
    )
