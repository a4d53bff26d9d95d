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
from contracts.members import Known, Said, token_of
from contracts.payload import Message
from contracts.slack import METHOD
from kit.events import Cause, New
from kit.problems import Problem
from policy.case import Person, Refusal
from policy.needs import Needs

LONGEST = timedelta(days=90)
KNOWN_FOR = timedelta(days=30)  # whose groups, as their newest token told them, count for a click
MOST_GROUPS = 500  # as in the events


class Directory:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # -- groups ---------------------------------------------------------------------------------------------------

    async def seen(self, tx: AsyncConnection, person: Person, at: datetime, *, held: str | None = None) -> None:
        """Notes what the token of a caller who acts says, when no newer one is known. `held`: the request that they act
        on, if its stream is the caller's.

        Raises:
            Problem: 403, there are more groups in the token than an event can hold.
        """
        if no := too_many(person):
            raise Problem(403, no.code, no.detail)
        known = await self._known(tx, person.subject)
        if _with(known, person) == known:
            return
        await self._desk.log.lock(tx, _stream(person.subject))
        known = await self._known(tx, person.subject)
        if _with(known, person) == known:
            return
        said = MembershipChanged(
            subject=person.subject,
            groups=tuple(sorted(person.groups)),
            person=person.person,
            by=_token(person).by,
            issued_at=_token(person).at,
            email=person.email or None,
        )
        await self._change(tx, known, said, Cause(person.subject), at, held)

    async def counting(self, tx: AsyncConnection, person: Person, place: tuple[str, str]) -> Person:
        """A caller with the groups that count: those of their newest token, without what the directory has taken away
        since it was issued, for a token outlives the membership."""
        known = _with(await self._known(tx, person.subject), person)
        return replace(
            person,
            groups=known.groups,
            person=person.person and known.person,
            may_vote=bool(self._desk.sights.member(known, place).groups),
            email=person.email or known.email,
        )

    async def tell(self, subject: str, groups: frozenset[str], *, person: bool, by: str) -> Known:
        """The directory says in which groups somebody is from now on: in no others, and in these if their token says so
        too. Votes that rest on others count no more."""
        async with self._desk.db.transaction() as tx:
            await self._desk.log.lock(tx, _stream(subject))
            at, known = await self._desk.clock(tx), await self._known(tx, subject)
            said = MembershipChanged(subject=subject, groups=tuple(sorted(groups)), person=person, by=by)
            await self._change(tx, known, said, Cause(by), at)
            return await self._known(tx, subject)

    async def _change(
        self,
        tx: AsyncConnection,
        known: Known,
        said: MembershipChanged,
        cause: Cause,
        at: datetime,
        held: str | None = None,
    ) -> None:
        """Makes the open requests due that somebody has acted on, when what counts of them is another now."""
        await self._append(tx, _stream(known.subject), said, cause, at)
        now = await self._known(tx, known.subject)
        if (now.groups, now.person, now.email) != (known.groups, known.person, known.email):
            await standing.look_again(tx, at, acted=known.subject, held=held)

    async def _known(self, tx: AsyncConnection, subject: str) -> Known:
        return (await views.members(tx, [subject])).get(subject) or Known(subject)

    async def person(self, tx: AsyncConnection, subject: str, place: tuple[str, str]) -> Person | None:
        """Somebody who does not call now, as they were last known."""
        known = (await views.members(tx, [subject])).get(subject)
        if known is None:
            return None
        may_vote = bool(self._desk.sights.member(known, place).groups)
        return Person(subject, known.groups, known.person, may_vote, "record", known.at, known.email)

    async def clicking(
        self, tx: AsyncConnection, subject: str, place: tuple[str, str], at: datetime
    ) -> Person | Refusal:
        """Somebody who clicked in Slack: as their newest token told them, without what was taken away since."""
        known = (await views.members(tx, [subject])).get(subject)
        if known is None or known.token is None or at - known.token.at > KNOWN_FOR:
            days = KNOWN_FOR.days
            why = f"nothing was heard of {subject} for {days} days; sign in, and run `hallmark notify slack link` again"
            return Refusal("authentication-too-old", why)
        may_vote = bool(self._desk.sights.member(known, place).groups)
        return Person(
            subject, known.groups, known.person, may_vote, METHOD, known.token.at, known.email, issued_at=known.token.at
        )

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
            if delegator.casefold() == delegate.casefold():
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


def too_many(person: Person) -> Refusal | None:
    count = len(person.groups)
    why = f"your token names {count} groups; {MOST_GROUPS} are the most that can be recorded"
    return Refusal("too-many-groups", why) if count > MOST_GROUPS else None


def _token(person: Person) -> Said:
    return token_of(person.subject, person.groups, person.person, person.issued_at or person.authenticated_at)


def _with(known: Known, person: Person) -> Known:
    return known.with_token(_token(person), person.email)


def _stream(subject: str) -> str:
    return f"member:{subject}"
