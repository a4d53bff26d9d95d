"""The vault: the one place that knows which person a pseudonym stands for. It is off unless a setting says where it is.

A pseudonym is random. Nobody can compute it, with whatever key: when its row is erased, nothing leads from it to the
person any more, and nothing from the person to it. Names that differ in capitals only are one person, as everywhere in
Hallmark, and a subject and an e-mail address that are the same text get the same pseudonym: whoever was one person or
two without the vault is so with it, too.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import Sequence

import sqlalchemy as sa

from contracts.people import has_address, is_pseudonym
from kit.db import Database
from kit.problems import Problem
from kit.settings import Settings

KEEP_SECONDS = 60.0
MOST_KEPT = 10_000
SALT_BYTES = 32
STATEMENT_MS = 5_000
_MEET = sa.text("select people.meet(:issuer, :person, :written, :folded, :fresh, :salts)")
_ENSURE = sa.text("select people.ensure(:issuer, false, :name, :folded, :fresh, :salt)")
_KNOWN = sa.text("select f, people.known(f) from unnest(cast(:folded as text[])) f")


class People:
    """Exchanges names for pseudonyms. What the vault said is kept in the process for a minute at most."""

    def __init__(self, url: str, issuer: str) -> None:
        self._db = Database(url, name="people", pool=2, statement_timeout_ms=STATEMENT_MS)
        self._issuer = issuer
        self._kept: dict[tuple[str, str | None, bool], tuple[float, str, str | None]] = {}

    @classmethod
    def of(cls, settings: Settings) -> "People | None":
        """None: the vault is off."""
        url = settings.people_database_url
        return cls(url.get_secret_value(), settings.auth_issuer) if url and url.get_secret_value() else None

    async def meet(self, subject: str, email: str | None, *, person: bool) -> tuple[str, str | None]:
        """The pseudonyms of a caller's subject and address, made when they are met for the first time. The subject of
        a service account stays as it is, unless a person has that name, or it may be a person whose token does not say
        so: it has an address, or is one.

        Raises whatever kept the vault from answering; then nobody knows the caller, by whatever name.
        """
        key, now = (subject, email, person), time.monotonic()
        if (kept := self._kept.get(key)) and kept[0] > now:
            return kept[1], kept[2]
        written = [subject, *([email] if email else [])]
        said = {
            "issuer": self._issuer,
            "person": person,
            "written": written,
            "folded": [name.casefold() for name in written],
            "fresh": [new_pseudonym() for _ in written],
            "salts": [secrets.token_bytes(SALT_BYTES) for _ in written],
        }
        async with self._db.transaction() as tx:
            found = list(await tx.scalar(_MEET, said) or ())
        known, address = found[0] or subject, found[1] if email else None
        if found[0] is None and (email or has_address(subject)):
            known = await self.stand_in(subject)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = (now + KEEP_SECONDS, known, address)
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._kept.pop, key, None)
        return known, address

    async def known(self, name: str) -> str | None:
        """The pseudonym of whoever has that subject or address; None: the vault knows nobody of that name."""
        return (await self.known_of([name])).get(name)

    async def known_of(self, names: Sequence[str]) -> dict[str, str]:
        """The pseudonyms of those of the names that the vault knows."""
        folded = {name: name.casefold() for name in names if name.isprintable()}  # as names in tokens are
        if not folded:
            return {}
        async with self._db.transaction() as tx:
            said = (await tx.execute(_KNOWN, {"folded": list({*folded.values()})})).all()
        known = {fold: pseudonym for fold, pseudonym in said if pseudonym is not None}
        return {name: known[fold] for name, fold in folded.items() if fold in known}

    async def named(self, name: str) -> str:
        """The pseudonym that is meant where somebody names a person: it itself, or that of the name.

        Raises:
            Problem: 422, the vault knows nobody of that name.
        """
        found = name if is_pseudonym(name) else await self.known(name)
        if found is None:
            raise Problem(
                422,
                "unknown-person",
                "nobody of that name is known. People are stored by pseudonym here, so name one who has called before, "
                "or write the pseudonym (hallmark audit person find)",
            )
        return found

    async def meant(self, name: str) -> str:
        """As `named`, where a name may also be a team's or a service account's: one that is nobody's stays as it is,
        unless it is an address."""
        if is_pseudonym(name):
            return name
        return await self.known(name) or (await self.stand_in(name) if has_address(name) else name)

    async def stand_in(self, name: str) -> str:
        """The pseudonym of a person who may never have called, such as an author; made when there is none.

        Raises:
            Problem: 422, no token could have that name.
        """
        if is_pseudonym(name):
            return name
        if not name.isprintable():
            raise Problem(422, "invalid-request", "a name of somebody has characters that cannot be printed")
        said = {"issuer": self._issuer, "name": name, "folded": name.casefold()}
        async with self._db.transaction() as tx:
            fresh = {"fresh": new_pseudonym(), "salt": secrets.token_bytes(SALT_BYTES)}
            found: str = await tx.scalar(_ENSURE, said | fresh)
        return found

    async def ping(self) -> None:
        await self._db.ping()

    async def close(self) -> None:
        await self._db.close()


def new_pseudonym() -> str:
    """`p_` and 128 random bits in base32."""
    return "p_" + base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
