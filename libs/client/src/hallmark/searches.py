"""Saved searches of the audit log: by hand or on a schedule, with alerts."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from hallmark.connection import Connection, read
from hallmark.results import SavedSearch, SearchRun

PATH = "/v1/searches"


class Searches(Connection):
    """Every method raises `HallmarkError`. Names are lower-case letters, digits and hyphens."""

    def save_search(
        self,
        name: str,
        filters: Mapping[str, Any] | None = None,
        *,
        q: str | None = None,
        every: timedelta | None = None,
        alert_above: int | None = None,
        start: int | None = None,
    ) -> SavedSearch:
        """Saves a search of the audit log; once more with the same contents does nothing.

        `filters` are those of audit's `GET /v1/timeline` (type: a list of patterns, actor, subject, outcome, model,
        workspace, ...), `q` is full text. It runs `every` so often, a minute or more; without, by hand only. A run
        looks at the entries since the one before, the first at those from the index `start` on, or from now on. More
        matches than `alert_above` are an event that is addressed to you: `subscribe(..., audience=["user:YOU"])`.
        """
        body = {
            "filters": {"workspace": self.workspace, **(filters or {})},
            "q": q,
            "every": None if every is None else every.total_seconds(),
            "alert_above": alert_above,
            "start": start,
        }
        return read(SavedSearch, self._put("audit", _of(name), body))

    def saved_searches(self, *, owner: str | None = None) -> Iterator[SavedSearch]:
        """Yours; those of another `owner` for who may configure everything."""
        return self._pages("audit", PATH, SavedSearch, owner=owner)

    def saved_search(self, name: str, *, owner: str | None = None) -> SavedSearch:
        return read(SavedSearch, self._get("audit", _of(name), owner=owner))

    def run_search(self, name: str) -> SearchRun:
        """Runs one of yours now. The run is recorded, and moves on where the next one begins."""
        return read(SearchRun, self._post("audit", f"{_of(name)}/run", {}))

    def remove_search(self, name: str, *, owner: str | None = None) -> None:
        self._call("audit", "DELETE", _of(name), params={"owner": owner})


def _of(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
