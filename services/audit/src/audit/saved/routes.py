"""HTTP in: saved searches. Everybody has their own; who may configure sees and removes those of others too."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from audit.access import ALL
from audit.answers import Answer
from audit.cursor import MAX
from audit.paging import Document
from audit.params import Filters, Reader, Readers
from audit.saved.schedule import Every
from audit.saved.searches import Searches, Wanted
from contracts.access import Action

NAME = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
Name = Annotated[str, Path(pattern=NAME)]
Owner = Annotated[str | None, Query(min_length=1, max_length=200, description="Yours when absent")]


class NewSearch(BaseModel):
    """`filters` are those of `GET /v1/timeline`, `q` is that of `GET /v1/search`. `every`: seconds or an ISO 8601
    duration, a minute or more; without, it runs by hand only. More matches in a run than `alert_above` are an alert to
    its owner. It looks at entries from the index `start` on; without, at what comes into the log from now on."""

    model_config = ConfigDict(extra="forbid")

    filters: Filters = Field(default_factory=Filters)
    q: Annotated[str, Field(min_length=2, max_length=200, pattern=r"^[^\x00]*$")] | None = None
    every: Every | None = None
    alert_above: Annotated[int, Field(ge=0, le=MAX)] | None = None
    start: Annotated[int, Field(ge=0, le=MAX // 2)] | None = None


class SavedSearch(Answer):
    """`groups`: whose rights, as the access file gives them then, its scheduled runs have. `next`: the first entry that
    it has not looked at. `ran_at`, `outcome` and `matches`: the last run. `every` is in seconds."""

    owner: str
    name: str
    filters: dict[str, Any]
    q: str | None
    every: int | None
    alert_above: int | None
    groups: list[str]
    saved_at: datetime
    next: int
    due_at: datetime | None
    ran_at: datetime | None
    matches: int | None
    outcome: Literal["allowed", "denied", "failed"] | None


class SavedSearches(Answer):
    items: list[SavedSearch]
    next: str | None


class Ran(Answer):
    """Of the entries from `first` up to but without `until` so many match; `indexes` are the first 20 of them."""

    first: int
    until: int
    matches: int
    indexes: list[int]
    alerted: bool


def router(reader: Readers, searches: Searches) -> APIRouter:
    """`reader` is the dependency of `params.readers`."""
    api = APIRouter(prefix="/v1/searches", tags=["searches"])
    Who = Annotated[Reader, Depends(reader)]

    @api.put("/{name}", summary="Save a search", response_model=SavedSearch, responses={201: {"model": SavedSearch}})
    async def save(name: Name, body: NewSearch, who: Who, response: Response) -> Document:
        wanted = Wanted(body.filters, body.q, body.every, body.alert_above, body.start)
        found, is_new = await searches.save(who, name, wanted)
        response.status_code = 201 if is_new else 200
        return found

    @api.get("", summary="Saved searches, by name", response_model=SavedSearches)
    async def listed(
        who: Who,
        owner: Owner = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        after: Annotated[str, Query(max_length=63, description="`next` of a page")] = "",
    ) -> Document:
        return await searches.saved(await _owner(who, owner), after, limit)

    @api.get("/{name}", summary="A saved search, and its last run", response_model=SavedSearch)
    async def one(name: Name, who: Who, owner: Owner = None) -> Document:
        return await searches.one(await _owner(who, owner), name)

    @api.delete("/{name}", summary="Remove a saved search", status_code=204)
    async def remove(name: Name, who: Who, owner: Owner = None) -> None:
        await searches.remove(await _owner(who, owner), name, who.principal.subject)

    @api.post("/{name}/run", summary="Run a saved search of yours now", response_model=Ran)
    async def run(name: Name, who: Who) -> Document:
        return await searches.run_one(who, name)

    return api


async def _owner(who: Reader, owner: str | None) -> str:
    """Raises Problem 403: others' are for who may configure."""
    meant = await who.meant(owner) or who.principal.subject
    if meant != who.principal.subject:
        await who.may(Action.CONFIGURE, ALL)
    return meant
