"""What is known of somebody: what their newest token said, and what the directory told. Pure.

The directory only takes away: what it has told since the newest token was issued goes off what that token says. Groups
come from tokens alone, so nobody gives any by telling, and whom only the directory knows has none yet. A token is an
old one when a newer one of the same person is known, and says nothing any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class Said:
    """`at`: when the token was issued, or when the directory told."""

    groups: frozenset[str]
    person: bool
    by: str
    at: datetime


def token_of(subject: str, groups: Iterable[str], person: bool, issued_at: datetime) -> Said:
    return Said(frozenset(groups), person, f"token of {subject}", issued_at)


@dataclass(frozen=True)
class Known:
    """`email`: of the newest token that named one."""

    subject: str
    token: Said | None = None
    told: Said | None = None
    email: str | None = None

    @property
    def groups(self) -> frozenset[str]:
        if self.token is None:
            return frozenset()
        return self.token.groups & self._since.groups if self._since else self.token.groups

    @property
    def person(self) -> bool:
        return all(said.person for said in (self.token, self._since) if said is not None)

    @property
    def _since(self) -> Said | None:
        """What the directory has told that the newest token does not know."""
        news = self.told is not None and (self.token is None or self.told.at > self.token.at)
        return self.told if news else None

    @property
    def latest(self) -> Said:
        """Raises LookupError when nothing is known."""
        said = self._since or self.token
        if said is None:
            raise LookupError(f"nothing is known of {self.subject}")
        return said

    @property
    def at(self) -> datetime:
        return self.latest.at

    def with_token(self, said: Said, email: str | None) -> "Known":
        if self.token is not None and said.at < self.token.at:
            return self
        return replace(self, token=said, email=email or self.email)

    def with_told(self, said: Said) -> "Known":
        return replace(self, told=said)
