"""What HTTP questions have in common: who asks, about what, as known when, and how many at once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, ConfigDict

from audit import queries
from audit.access import ALL, AccessLog
from audit.cursor import MAX
from audit.outcome import Outcome
from audit.paging import Ask, Known
from audit.queries import Filter, Place
from contracts.access import Action
from contracts.payload import Line, ModelName, VersionNumber, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.problems import Problem
from kit.web import Guard


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is beyond the years 1 to 9999") from error


SIGNATURES = "hallmark-signatures"
Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
At = Annotated[Instant | None, Query(description="With its offset; now when absent")]
Since = Annotated[Instant | None, Query(description="From this instant on")]
Until = Annotated[Instant | None, Query(description="Before this instant")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
After = Annotated[str | None, Query(max_length=2_000, description="`next` of a page")]
Index = Annotated[int, Query(ge=0, le=MAX)]
ModelPath = Annotated[ModelName, Path(description="Any name that the model has or had")]
OneWorkspace = Annotated[Workspace, Query()]
AnyWorkspace = Annotated[str, Query(pattern=r"^(\*|[a-z0-9-]{1,63})$", description="* for all")]


def asked(
    limit: Limit = 50,
    after: After = None,
    signed: Annotated[
        bool, Query(description="In the tree of the newest signed checkpoint: its 'size' has proofs")
    ] = False,
) -> Ask:
    return Ask(limit, after, signed)


def known(
    known_at: Annotated[Instant | None, Query(description="As the log knew it then; now when absent")] = None,
    known_size: Annotated[int | None, Query(ge=0, le=MAX, description="As a tree of so many entries knew it")] = None,
) -> Known:
    """Raises Problem 422 when both are given."""
    if known_at is not None and known_size is not None:
        raise Problem(422, "invalid-request", "give 'known_at' or 'known_size', not both")
    return Known(known_at, known_size)


Asked = Annotated[Ask, Depends(asked)]
AsKnown = Annotated[Known, Depends(known)]


@dataclass(frozen=True)
class Scope:
    """What a question is narrowed to, before anybody looked whether the caller may ask it."""

    workspace: AnyWorkspace = "default"
    model: Annotated[ModelName | None, Query(description="Any name it has or had")] = None
    version: Annotated[VersionNumber | None, Query()] = None
    since: Since = None
    until: Until = None


@dataclass(frozen=True)
class Filters(Scope):
    """What a list of entries is narrowed to."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # where they are a body

    types: Annotated[
        list[Line] | None, Query(alias="type", max_length=20, description="* and ? stand for anything")
    ] = None
    actor: Annotated[Line | None, Query()] = None
    subject: Annotated[Line | None, Query(description="* and ? stand for anything")] = None
    outcome: Annotated[Outcome | None, Query()] = None
    correlationid: Annotated[Line | None, Query()] = None
    problem: Annotated[bool | None, Query(description="Only entries with a problem, or without")] = None
    copies: Annotated[bool, Query(description="Also what a topic held twice")] = False


class Reader:
    """A caller and what they ask, to be admitted before they are answered. Without a `query` no record is left: what
    reads in somebody's name leaves one of its own."""

    def __init__(self, db: Database, guard: Guard, access: AccessLog, principal: Principal, query: str | None) -> None:
        self._db, self._guard, self._access, self._principal, self._query = db, guard, access, principal, query

    @property
    def principal(self) -> Principal:
        return self._principal

    async def meant(self, name: str | None) -> str | None:
        """Whom the caller means by a name: where people have pseudonyms, theirs."""
        return await self._access.meant(name)

    async def words(self, text: str) -> str:
        """As `meant`, for each word of a text."""
        return await self._access.words(text)

    async def may(self, action: Action, workspace: str) -> None:
        """Raises Problem 403 unless the caller may do the action there."""
        await self._admit(action, workspace)

    async def everything(self) -> None:
        """Raises Problem 403 unless the caller audits everything."""
        await self._admit()

    async def model(self, workspace: str, name: str) -> str:
        """The identity of a model that the caller may read. Raises Problem 403, which does not tell the identity."""
        async with self._db.snapshot() as tx:
            of = await queries.identity(tx, workspace, name)
        try:
            await self._admit(Action.READ, workspace, of)
        except Problem as problem:
            raise self._forbidden(problem, "read", f"{workspace}/{name}") from None
        return of

    def audits(self) -> bool:
        """Whether the caller audits everything."""
        return self._guard.access.allows(self._principal, Action.AUDIT, ALL)

    def _forbidden(self, problem: Problem, action: str, what: str) -> Problem:
        return Problem(problem.status, problem.code, f"{self._principal.subject} may not {action} in {what}")

    async def place(self, scope: Scope) -> Place:
        """What the caller may read: of all workspaces with the right to audit, of one with that to read it.

        Raises:
            Problem: 403.
        """
        rest = (scope.version, scope.since, scope.until)
        if scope.workspace == ALL:
            return await self._everywhere(scope)
        if scope.model is not None:
            return Place(scope.workspace, await self.model(scope.workspace, scope.model), *rest)
        await self._admit(Action.READ, scope.workspace)
        return Place(scope.workspace, None, *rest)

    async def filter(self, where: Filters, start: int = 0) -> Filter:
        """Raises Problem 403 as `place`."""
        place, actor = await self.place(where), await self.meant(where.actor)
        types = tuple(where.types or ())
        rest = (where.subject, where.outcome, where.correlationid, where.problem, where.copies, start)
        return Filter(place, types, actor, *rest)

    async def _admit(self, action: Action = Action.AUDIT, workspace: str = ALL, model: str = ALL) -> None:
        if self._query is None:
            self._guard.require(self._principal, action, workspace, model)
        else:
            await self._access.admit(self._principal, self._query, action, workspace, model)

    async def _everywhere(self, scope: Scope) -> Place:
        """The models of that name that the caller may audit in all workspaces: by their identities, since names are
        what others choose. Without a name, everything."""
        if scope.model is None:
            await self.everything()
            return Place(None, None, scope.version, scope.since, scope.until)
        async with self._db.snapshot() as tx:
            found = await queries.identities(tx, scope.model)
        may = {of for of in {scope.model, *(of for _, of in found)} if self._may_audit(of)}
        try:
            await self._admit(Action.AUDIT, ALL, min(may) if may else scope.model)
        except Problem as problem:
            raise self._forbidden(problem, "audit", f"{ALL}/{scope.model}") from None
        models = tuple((workspace, of) for workspace, of in found if of in may)
        renamed = scope.model not in may
        return Place(None, scope.model, scope.version, scope.since, scope.until, models, renamed)

    def _may_audit(self, model: str) -> bool:
        return self._guard.access.allows(self._principal, Action.AUDIT, ALL, model)


Readers = Callable[..., Awaitable[Reader]]


def readers(db: Database, guard: Guard, access: AccessLog, *, checked: bool) -> Readers:
    """The dependency that gives a route its `Reader`, and says in every answer whether signatures are `checked`: where
    the service has no keys of decisions, what names one is the word of whoever writes to the topics."""

    async def reader(request: Request, response: Response, caller: Annotated[Principal, Depends(guard)]) -> Reader:
        response.headers[SIGNATURES] = "checked" if checked else "not-checked"
        return Reader(db, guard, access, caller, await access.told(request))

    return reader
