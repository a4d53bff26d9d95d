"""People: who votes for whom meanwhile, and who is in which groups."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from hallmark.approval_results import Delegation, Member, SlackCode
from hallmark.connection import Connection, read


class People(Connection):
    """Every method raises `HallmarkError`."""

    def delegations(self, *, everybody: bool = False) -> list[Delegation]:
        """Delegations to and by the caller, ended ones too; `everybody`'s for those who manage people."""
        of = "all" if everybody else None
        return list(self._pages("approval", "/v1/delegations", Delegation, of=of))

    def delegate(
        self,
        delegate: str,
        ends: datetime,
        *,
        starts: datetime | None = None,
        reason: str = "",
        delegator: str | None = None,
    ) -> Delegation:
        """Lets `delegate` vote where the caller may, from `starts` (now) to `ends`: times with a zone, 90 days at most.

        Policies may allow no delegation, or a shorter one only. `delegator`: for somebody else, by those who manage
        people.
        """
        body: dict[str, Any] = {
            "delegate": delegate,
            "ends": ends.isoformat(),
            "starts": starts.isoformat() if starts else None,
            "reason": reason or None,
            "delegator": delegator,
        }
        return read(Delegation, self._post("approval", "/v1/delegations", body))

    def end_delegation(self, delegation_id: str) -> Delegation:
        path = f"/v1/delegations/{quote(delegation_id, safe='')}"
        return read(Delegation, self._call("approval", "DELETE", path))

    def slack_code(self) -> SlackCode:
        """What to enter in Slack within ten minutes, so that clicks there count as the caller's."""
        return read(SlackCode, self._post("approval", "/v1/slack/codes", {}))

    def unlink_slack(self) -> int:
        """No Slack account acts for the caller any more. How many did."""
        answer = self._call("approval", "DELETE", "/v1/slack/accounts").json()
        return int(answer["accounts"])

    def member(self, subject: str) -> Member:
        """The groups somebody is known to be in. Others than oneself: for those who manage people."""
        return read(Member, self._get("approval", _of(subject)))

    def set_member(self, subject: str, groups: Sequence[str], *, person: bool = True) -> Member:
        """Tells in which groups somebody is from now on, and in no others; votes that rest on others count no more. It
        takes away only: groups are given by tokens, and whom only this tells of is in none yet. Never for oneself.

        The next token of theirs that is used tells anew. Needs the right to manage people.
        """
        return read(Member, self._put("approval", _of(subject), {"groups": list(groups), "person": person}))


def _of(subject: str) -> str:
    return f"/v1/members/{quote(subject, safe='')}"
