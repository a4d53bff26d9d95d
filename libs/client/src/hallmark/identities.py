"""The vault of identities: whom a pseudonym stands for, and how they are forgotten."""

from urllib.parse import quote

from hallmark.connection import Connection, read
from hallmark.results import Erased, Identity, Page


class Identities(Connection):
    """Every method raises `HallmarkError`; code `no-vault` where the log names people as their tokens do."""

    def identity(self, pseudonym: str) -> Identity:
        """Whom it stands for. For auditors; that they asked is recorded."""
        return read(Identity, self._get("audit", _of(pseudonym)))

    def identities(self, name: str) -> list[Identity]:
        """Who has that subject or e-mail address; nobody or one. Capitals do not matter."""
        return read(Page[Identity], self._get("audit", "/v1/people", subject=name)).items

    def erase_identity(self, pseudonym: str, reason: str) -> Erased:
        """Forgets for good whom it stands for. The log keeps the pseudonym, and every proof stays valid.

        Needs the right to manage people. `reason` stays in the log and must not name them.
        """
        return read(Erased, self._call("audit", "DELETE", _of(pseudonym), params={"reason": reason}))


def _of(pseudonym: str) -> str:
    return f"/v1/people/{quote(pseudonym, safe='')}"
