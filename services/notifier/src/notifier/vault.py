"""Secrets of subscriptions: sealed with AES-256-GCM. Without the operator's key file none is taken."""

import hmac
import os
from pathlib import Path

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.problems import Problem
from notifier.tables import SecretRow, table_of

CLEAR, SEALED = b"\x00", b"\x01"
NONCE_BYTES = 12
MIN_KEY_BYTES = 32


class VaultError(Exception):
    """A secret cannot be read: the key is absent, or another one."""


class Vault:
    """The first byte of what is stored says whether the rest is sealed: former versions did without a key."""

    def __init__(self, key: bytes | None) -> None:
        self._naming = _derived(key or b"", b"hallmark notifier endpoints")
        self._aead = AESGCM(_derived(key, b"hallmark notifier secrets")) if key else None

    @classmethod
    def load(cls, path: Path | None) -> "Vault":
        """Raises ValueError when the file is missing or too short to be a key."""
        if path is None:
            return cls(None)
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise ValueError(f"HALLMARK_SECRET_KEY: cannot read {path}: {error.strerror}") from error
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"HALLMARK_SECRET_KEY: {path} holds {len(key)} bytes, a key has {MIN_KEY_BYTES} or more")
        return cls(key)

    @property
    def sealing(self) -> bool:
        return self._aead is not None

    def fingerprint(self, text: str) -> str:
        """A digest that tells the same text again; with a key nobody else can find out what the text was."""
        return hmac.digest(self._naming, text.encode(), "sha256").hex()

    def store(self, subscription_id: str, name: str, secret: str) -> bytes:
        """Raises Problem 503 without a key."""
        if self._aead is None:
            raise Problem(503, "no-secret-key", "this Hallmark keeps no secrets; the operator sets HALLMARK_SECRET_KEY")
        nonce = os.urandom(NONCE_BYTES)
        return SEALED + nonce + self._aead.encrypt(nonce, secret.encode(), _bound(subscription_id, name))

    def read(self, subscription_id: str, name: str, stored: bytes) -> str:
        """Raises VaultError."""
        kind, rest = stored[:1], stored[1:]
        if kind == CLEAR:
            return rest.decode()
        if self._aead is None:
            raise VaultError("a secret is sealed, and HALLMARK_SECRET_KEY is not set")
        try:
            return self._aead.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _bound(subscription_id, name)).decode()
        except InvalidTag as error:
            raise VaultError("a secret was sealed with another key than HALLMARK_SECRET_KEY") from error


async def seal(tx: AsyncConnection, vault: Vault) -> int:
    """Seals what a former version stored in clear, and gives how many those were."""
    secret = table_of(SecretRow)
    clear = sa.select(secret).where(sa.func.substring(secret.c.value, 1, 1) == CLEAR).with_for_update()
    rows = (await tx.execute(clear)).all()
    for row in rows:
        sealed = vault.store(row.subscription_id, row.name, row.value[1:].decode())
        mine = sa.and_(secret.c.subscription_id == row.subscription_id, secret.c.name == row.name)
        await tx.execute(sa.update(secret).where(mine).values(value=sealed))
    return len(rows)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(key)


def _bound(subscription_id: str, name: str) -> bytes:
    """A sealed value is good for its own row only."""
    return f"{subscription_id}:{name}".encode()
