"""Requests for approval: read them, vote, comment, waive, and what emergencies need."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote

from contracts.approval import RequestDecided
from hallmark.approval_results import Request, RevocationOrder
from hallmark.connection import PAGE, read
from hallmark.errors import HallmarkError
from hallmark.evidence import EvidenceFiles
from hallmark.people import People
from hallmark.policies import Policies
from hallmark.results import Page

View = Literal["all", "needs-me", "asked"]
LONG_POLL_SECONDS = 20.0
LOOK_AGAIN_SECONDS = 2.0


class Ballot(TypedDict, total=False):
    """How a vote is cast. With `request_digest`, only if the request is still the one that was read; `rule`: for which
    of several rules; `on_behalf_of`: for somebody who delegated to the voter."""

    request_digest: str | None
    rule: str | None
    on_behalf_of: str | None


class Approvals(Policies, People, EvidenceFiles):
    """Every method raises `HallmarkError`."""

    # -- reading -------------------------------------------------------------------------------------------------

    def requests(
        self,
        status: str | None = None,
        *,
        view: View = "all",
        workspace: str | None = None,
        model: str | None = None,
    ) -> Iterator[Request]:
        """Requests of every workspace, or of one. Changes of policies are of none: they are of the workspace `*`.

        `view`: `needs-me` is what waits for the caller's vote, waiver or review, also by delegation, the oldest first;
        `asked` is what the caller asked for; it and `all` begin with the newest. `status`: open, approved, rejected,
        expired, cancelled, or another registry's word (pending, denied, canceled).
        """
        after: str | int | None = None
        while True:
            page = self.request_page(status, view=view, workspace=workspace, model=model, after=after)
            yield from page.items
            if page.next is None:
                return
            after = page.next

    def request_page(
        self,
        status: str | None = None,
        *,
        view: View = "all",
        workspace: str | None = None,
        model: str | None = None,
        limit: int = PAGE,
        after: str | int | None = None,
    ) -> Page[Request]:
        """At most `limit` (1 to 500) of what `requests` gives, from the place `after`: the `next` of a page before."""
        response = self._get(
            "approval",
            "/v1/requests",
            view=None if view == "all" else view,
            status=status,
            workspace=workspace,
            model=model,
            limit=limit,
            after=after,
        )
        return read(Page[Request], response)

    def request(self, request_id: str, *, wait: float = 0.0) -> Request:
        """A request for approval; its id is the transition's.

        Approval hears of a new transition a moment after the registry recorded it: within `wait` seconds, "not
        found" is asked again, and so is a request whose gates were not evaluated yet.
        """
        deadline, pause = time.monotonic() + wait, 0.05
        while True:
            try:
                found = self._request(request_id)
                if found.gates_done or time.monotonic() > deadline:
                    return found
            except HallmarkError as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def wait_for_request(self, request_id: str, seconds: float) -> Request:
        """Long-polls until the request ends or the time is over; returns its last known state."""
        left, deadline = max(seconds, 0.0), time.monotonic() + seconds
        while True:
            found = self._request(request_id, wait=min(left, LONG_POLL_SECONDS))
            left = deadline - time.monotonic()
            if not found.open or left <= 0:
                return found

    def watch_request(self, request_id: str, seconds: float | None = None) -> Iterator[Request]:
        """The request as it is, then each time that something about it has changed: until it ends, or `seconds` are
        over."""
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        found = self._request(request_id)
        yield found
        while found.open and (left := deadline - time.monotonic()) > 0:
            before = found
            found = self._request(request_id, wait=min(LOOK_AGAIN_SECONDS, left))
            if found.model_copy(update={"you": before.you}) != before:
                yield found

    def _request(self, request_id: str, wait: float = 0.0) -> Request:
        return read(Request, self._get("approval", _of(request_id), patience=wait, wait=round(wait, 3) or None))

    def decision_record(self, request_id: str) -> RequestDecided:
        """The signed decision with all that it rests on: enough to judge it again without asking anybody."""
        return read(RequestDecided, self._get("approval", f"{_of(request_id)}/record"))

    def save_decision(self, request_id: str, target: str | Path) -> Path:
        """Writes `decision_record` to a file, for `hallmark decision verify`."""
        path = Path(target)
        self._save("approval", f"{_of(request_id)}/record", path)
        return path

    def signature_manifest(self, request_id: str) -> str:
        """Who signed what, when, in which meaning and by which method, as text to print (21 CFR 11.50)."""
        return self._get("approval", f"{_of(request_id)}/manifest").text

    def decision_keys(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517) that decisions and revocations are checked with; keep it with what it signed."""
        found: dict[str, Any] = self._get("approval", "/.well-known/jwks.json").json()
        return found

    # -- acting --------------------------------------------------------------------------------------------------

    def vote(
        self, request_id: str, choice: Literal["approve", "reject"], comment: str = "", **how: Unpack[Ballot]
    ) -> Request:
        body = {"choice": choice, "comment": comment, **how}
        return self._act(request_id, "votes", body)

    def approve(self, request_id: str, comment: str = "", **how: Unpack[Ballot]) -> Request:
        return self.vote(request_id, "approve", comment, **how)

    def reject(self, request_id: str, comment: str = "", **how: Unpack[Ballot]) -> Request:
        """Rejects; `comment` has to say why."""
        return self.vote(request_id, "reject", comment, **how)

    def withdraw_vote(self, request_id: str, reason: str = "") -> Request:
        """Takes the caller's vote back, or one that was cast for them, as long as the request is open."""
        path = f"{_of(request_id)}/votes"
        return read(Request, self._call("approval", "DELETE", path, params={"reason": reason or None}))

    def comment(self, request_id: str, text: str) -> Request:
        return self._act(request_id, "comments", {"text": text})

    def waive(self, request_id: str, gate: str, reason: str, *, request_digest: str | None = None) -> Request:
        """Lets the request pass though this gate does not: signed like a vote, by somebody whom the policy names."""
        return self._act(
            request_id, "waivers", {"gate": gate, "reason": reason, "request_digest": request_digest or None}
        )

    def break_glass(self, request_id: str, reason: str) -> Request:
        """Lets an open request pass in an emergency. People are paged at once, and others have to review it."""
        return self._act(request_id, "break-glass", {"reason": reason})

    def review(self, request_id: str, comment: str, *, justified: bool) -> Request:
        """Says of an emergency whether it was one."""
        return self._act(request_id, "reviews", {"justified": justified, "comment": comment})

    def withdraw_request(self, request_id: str) -> Request:
        """Takes an open change of a policy back. A transition is cancelled in the registry: `cancel`."""
        return self._act(request_id, "withdraw", {})

    def _act(self, request_id: str, act: str, body: dict[str, Any]) -> Request:
        return read(Request, self._post("approval", f"{_of(request_id)}/{act}", body))

    def revoke_version(self, model: str, version: int, reason: str, *, fallback: int | None = None) -> RevocationOrder:
        """Orders that nobody uses the version any more: servers stop using it, and its stage returns to `fallback`.

        Without it, to the version that was approved with it for that, else to the last good one. There is no way back.
        """
        body = {"workspace": self.workspace, "model": model, "version": version, "reason": reason, "fallback": fallback}
        return read(RevocationOrder, self._post_about_version("/v1/revocations", body))


def _of(request_id: str) -> str:
    """The path of a request."""
    return f"/v1/requests/{quote(request_id, safe='')}"
