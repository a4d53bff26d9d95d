"""Secrets of subscriptions: sealed with AES-256-GCM when the operator gives a key file."""

import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CLEAR, SEALED = b"\x00", b"\x01"
NONCE_BYTES = 12
MIN_KEY_BYTES = 32


class VaultError(Exception):
    """A secret cannot be read: the key is absent, or another one."""


class Vault:
    """The first byte of what it stores says whether the rest is sealed, so a key can be introduced later."""

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
        if self._aead is None:
            return CLEAR + secret.encode()
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


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(key)


def _bound(subscription_id: str, name: str) -> bytes:
    """A sealed value is good for its own row only."""
    return f"{subscription_id}:{name}".encode()
