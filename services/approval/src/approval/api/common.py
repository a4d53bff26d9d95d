"""What every route shares: types of parameters, and who is calling."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from approval.desk import Desk
from approval.domain import Request
from contracts.access import Action
from contracts.payload import Identifier, Reason, Text
from kit.auth import Principal
from kit.problems import Problem
from kit.web import Guard
from policy.case import Person

LOOK_AGAIN_SECONDS = 1.0


def in_utc(at: datetime) -> datetime:
    """Raises ValueError when it is no date there."""
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the date is out of range in UTC") from error


def visible(text: str) -> str:
    if not text.strip():
        raise ValueError("write something that can be seen")
    return text


RequestId = Annotated[Identifier, Path()]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str | None, Query(max_length=200, pattern=r"^[\x21-\x7e]+$")]
Filter = Annotated[str | None, Query(max_length=250, pattern=r"^[^\x00]*$")]
Comment = Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")]
# Without what Python cannot count in UTC, such as the end of the year 9999 in the west.
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
Words = Annotated[Text, Field(min_length=1), AfterValidator(visible)]
Said = Annotated[Reason, AfterValidator(visible)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Callers:
    """Callers as people who act on requests."""

    def __init__(self, guard: Guard, desk: Desk) -> None:
        self.guard, self._desk = guard, desk

    def may(self, principal: Principal, action: Action, place: tuple[str, str]) -> bool:
        return self.guard.access.allows(principal, action, *place)

    def require_read(self, principal: Principal, request: Request) -> None:
        """Raises Problem 403. Changes of policies are everybody's to read, like the policies themselves."""
        if request.kind != "policy":
            self.guard.require(principal, Action.READ, *request.place)

    def person(self, principal: Principal, place: tuple[str, str]) -> Person:
        return Person(
            subject=principal.subject,
            groups=principal.groups,
            person=principal.kind == "person",
            may_vote=self.may(principal, Action.VOTE, place),
            method=principal.method,
            authenticated_at=datetime.fromtimestamp(principal.authenticated_at, UTC),
            email=principal.email,
            issued_at=datetime.fromtimestamp(principal.issued_at, UTC),
        )

    async def request(self, request_id: str, principal: Principal) -> Request:
        """The request, if the caller may read it.

        Raises:
            Problem: 403, 404.
        """
        async with self._desk.db.snapshot() as tx:
            found = await self._desk.known(tx, request_id)
        self.require_read(principal, found)
        return found


# The words of other registries (SageMaker's ModelApprovalStatus, the Databricks workspace registry's requests).
STATUSES = {
    "open": "open",
    "pending": "open",
    "pendingmanualapproval": "open",
    "approved": "approved",
    "rejected": "rejected",
    "denied": "rejected",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}


def status_named(word: str | None) -> str | None:
    """The status that a word means. Raises Problem 422 for one that means none."""
    if word is None:
        return None
    if word.casefold() not in STATUSES:
        raise Problem(422, "unknown-status", f"no status {word!r}; one of {', '.join(sorted(STATUSES))}")
    return STATUSES[word.casefold()]
