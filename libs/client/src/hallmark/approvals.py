"""Requests for approval, votes and policies."""

import time
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

from hallmark.connection import Connection, read
from hallmark.errors import HallmarkError
from hallmark.results import Request


class Approvals(Connection):
    """Every method raises `HallmarkError`."""

    def requests(self, status: str | None = None) -> Iterator[Request]:
        return self._pages("approval", "/v1/requests", Request, status=status)

    def request(self, request_id: str, *, wait: float = 0.0) -> Request:
        """A request for approval; its id is the transition's.

        Approval hears of a new transition a moment after the registry recorded it: within `wait` seconds, "not
        found" is asked again, and so is a request whose gates were not evaluated yet.
        """
        path, deadline = f"/v1/requests/{quote(request_id, safe='')}", time.monotonic() + wait
        pause = 0.05
        while True:
            try:
                found = read(Request, self._get("approval", path))
                if found.gates_done or time.monotonic() > deadline:
                    return found
            except HallmarkError as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def vote(
        self,
        request_id: str,
        choice: Literal["approve", "reject"],
        comment: str = "",
        *,
        request_digest: str | None = None,
    ) -> Request:
        """Votes. With `request_digest`, only if the request is still the one that was read."""
        body = {"choice": choice, "comment": comment}
        if request_digest:
            body["request_digest"] = request_digest
        path = f"/v1/requests/{quote(request_id, safe='')}/votes"
        return read(Request, self._post("approval", path, body))

    def approve(self, request_id: str, comment: str = "") -> Request:
        return self.vote(request_id, "approve", comment)

    def reject(self, request_id: str, comment: str = "") -> Request:
        return self.vote(request_id, "reject", comment)

    def publish_policy(self, document: str) -> dict[str, Any]:
        """Publishes a policy (YAML): the first of its name, or a new revision. Needs an administrator's token."""
        published: dict[str, Any] = self._post("approval", "/v1/policies", {"document": document}).json()
        return published
