"""Who is in which groups, and who votes for whom meanwhile."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import standing, views
from approval.desk import Desk
from approval.domain import Request
from contracts.approval import DelegationEnded, DelegationGranted, MembershipChanged
from contracts.envelope import new_id
from contracts.payload import Message
from kit.events import Cause, New
from kit.problems import Problem
from policy.needs import Needs
from policy.people import Person, Refusal

LONGEST = timedelta(days=90)


class Directory:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # -- groups ---------------------------------------------------------------------------------------------------

    async def seen(self, tx: AsyncConnection, person: Person, at: datetime) -> None:
        """Notes the groups of a caller who acts, when they are news."""
        if await self._newer(tx, person) is None:
            await self._tell(tx, person.subject, person.groups, person.person, _token_of(person.subject), at)

    async def counting(self, tx: AsyncConnection, person: Person, place: tuple[str, str]) -> Person:
        """A caller with the groups that count: what the directory has told since they signed in goes before what their
        token says, for a token outlives the membership."""
        row = await self._newer(tx, person)
        if row is None:
            return person
        may_vote = bool(self._desk.sights.member(row, place).groups)
        return replace(person, groups=frozenset(row.groups), person=person.person and row.person, may_vote=may_vote)

    async def _newer(self, tx: AsyncConnection, person: Person) -> Any:
        row = (await views.members(tx, [person.subject])).get(person.subject)
        told = row is not None and row.told_by != _token_of(row.subject) and person.authenticated_at < row.at
        return row if told else None

    async def tell(self, subject: str, groups: frozenset[str], *, person: bool, by: str) -> Any:
        """The directory says in which groups somebody is from now on; votes that rest on others count no more."""
        async with self._desk.db.transaction() as tx:
            at = await self._desk.clock(tx)
            if await self._tell(tx, subject, groups, person, by, at):
                await standing.look_again(tx, at, heard=subject)
            return (await views.members(tx, [subject]))[subject]

    async def _tell(
        self, tx: AsyncConnection, subject: str, groups: frozenset[str], person: bool, by: str, at: datetime
    ) -> bool:
        known = (await views.members(tx, [subject])).get(subject)
        if known is not None and (frozenset(known.groups), known.person) == (groups, person):
            return False
        message = MembershipChanged(subject=subject, groups=tuple(sorted(groups)), person=person, by=by)
        await self._append(tx, f"member:{subject}", message, Cause(by), at)
        return True

    async def person(self, tx: AsyncConnection, subject: str, place: tuple[str, str]) -> Person | None:
        """Somebody who does not call now, as they were last known."""
        row = (await views.members(tx, [subject])).get(subject)
        if row is None:
            return None
        member = self._desk.sights.member(row, place)
        return Person(subject, frozenset(row.groups), row.person, bool(member.groups), "record", row.at)

    # -- delegations ----------------------------------------------------------------------------------------------

    async def grant(
        self, delegator: str, delegate: str, starts: datetime | None, ends: datetime, reason: str, by: str
    ) -> Any:
        """Lets `delegate` vote where `delegator` may, from `starts` (now) to `ends`. Doing it again does nothing.

        Raises:
            Problem: 422, the dates or the people make no sense.
        """
        async with self._desk.db.transaction() as tx:
            await self._desk.log.lock(tx, f"delegation:{delegator}")
            at = await self._desk.clock(tx)
            since = starts or at
            if delegator == delegate:
                raise Problem(422, "own-delegate", "name somebody else")
            if not (at < ends and since < ends):
                raise Problem(422, "bad-dates", "'ends' must be after 'starts', and in the future")
            if ends - since > LONGEST:
                raise Problem(422, "bad-dates", f"a delegation lasts {LONGEST.days} days at most")
            for known in await views.delegations(tx, delegate=delegate, delegator=delegator):
                same_start = known.starts == starts if starts else known.starts <= at
                if known.ended_at is None and known.ends == ends and same_start:
                    return known
            granted = DelegationGranted(
                delegation_id=str(new_id()),
                delegator=delegator,
                delegate=delegate,
                starts=since,
                ends=ends,
                reason=reason,
            )
            await self._append(tx, f"delegation:{delegator}", granted, Cause(by), at)
            return await views.delegation(tx, granted.delegation_id)

    async def end(self, delegation_id: str, by: str, *, anybodys: bool = False) -> Any:
        """Ends a delegation: its delegator may, its delegate too, and whoever manages people. Again does nothing.

        Raises:
            Problem: 403, 404.
        """
        async with self._desk.db.transaction() as tx:
            found = await views.delegation(tx, delegation_id)
            if found is None:
                raise Problem(404, "delegation-not-found", f"no delegation {delegation_id}")
            if by not in (found.delegator, found.delegate) and not anybodys:
                raise Problem(403, "forbidden", f"it is {found.delegator}'s delegation")
            await self._desk.log.lock(tx, f"delegation:{found.delegator}")
            found = await views.delegation(tx, delegation_id)
            if found.ended_at is None:
                ended = DelegationEnded(
                    delegation_id=delegation_id, delegator=found.delegator, delegate=found.delegate, ended_by=by
                )
                at = await self._desk.clock(tx)
                await self._append(tx, f"delegation:{found.delegator}", ended, Cause(by), at)
            return await views.delegation(tx, delegation_id)

    async def represented(
        self, tx: AsyncConnection, delegate: str, delegator: str, request: Request, at: datetime, needs: Needs
    ) -> Person | Refusal:
        """For whom `delegate` wants to vote, if a delegation of now lets them and the policies do.

        The right is the delegator's own: what others delegated to them does not travel further.
        """
        in_force = await views.delegations(tx, delegate=delegate, delegator=delegator, at=at)
        if not in_force:
            return Refusal("no-delegation", f"{delegator} has not delegated to {delegate} at this time", recorded=True)
        if needs.delegation is not None and all(row.ends - row.starts > needs.delegation for row in in_force):
            days = needs.delegation / timedelta(days=1)
            return Refusal("delegation-too-long", f"the policy takes delegations of {days:g} days at most")
        found = await self.person(tx, delegator, request.place)
        return found or Refusal("unknown-person", f"nothing is known of {delegator}")

    async def _append(self, tx: AsyncConnection, stream: str, message: Message, cause: Cause, at: datetime) -> None:
        last = await self._desk.log.lock(tx, stream)
        for envelope in await self._desk.log.append(tx, stream, last, [New(message, stream)], cause, at):
            await views.project(tx, envelope)


def _token_of(subject: str) -> str:
    return f"token of {subject}"
