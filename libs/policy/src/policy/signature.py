"""Compact JWS (RFC 7515) with Ed25519 (RFC 8037), read by hand and strictly: one algorithm, one header, one spelling.

It needs nothing of the service that signed, so that a record can be checked where the service is not.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM = "EdDSA"
MAX_LENGTH = 1_000_000  # as in `contracts.payload.Jws`


class BadSignature(ValueError):
    """The text says why."""


@dataclass(frozen=True)
class Token:
    """A JWS taken apart, not yet verified."""

    kid: str
    payload: bytes
    signed: bytes
    signature: bytes


def taken_apart(text: str, typ: str) -> Token:
    """Raises BadSignature unless it is a compact JWS whose header says exactly alg (EdDSA), kid and that typ."""
    if len(text) > MAX_LENGTH:
        raise BadSignature(f"it is longer than {MAX_LENGTH} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise BadSignature("it is no compact JWS: it must have three parts")
    header, payload, signature = (_decoded(part) for part in parts)
    try:
        said = json.loads(header.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadSignature(f"its header is no JSON: {error}") from error
    if not isinstance(said, dict) or set(said) != {"alg", "kid", "typ"} or not isinstance(said["kid"], str):
        raise BadSignature("its header does not say exactly alg, kid and typ")
    if said["alg"] != ALGORITHM:
        raise BadSignature(f"its algorithm is not {ALGORITHM}")
    if said["typ"] != typ:
        raise BadSignature(f"its type is not {typ}")
    return Token(said["kid"], payload, text.rpartition(".")[0].encode(), signature)


def key_of(keys: Mapping[str, Any], kid: str) -> Mapping[str, Any]:
    """The one key of a JWK Set that has this id. Raises BadSignature."""
    members = keys.get("keys")
    if not isinstance(members, list):
        raise BadSignature("the keys are no JWK Set")
    found = [key for key in members if isinstance(key, dict) and key.get("kid") == kid]
    if len(found) > 1:
        raise BadSignature(f"two keys are called {kid[:200]}")
    if not found:
        raise BadSignature(f"it is signed by the key {kid[:200]}, which is not known")
    return found[0]


def verify(token: Token, key: Mapping[str, Any]) -> None:
    """Raises BadSignature unless that key signed the token."""
    if (key.get("kty"), key.get("crv")) != ("OKP", "Ed25519") or not isinstance(key.get("x"), str):
        raise BadSignature(f"the key {token.kid} is not of Ed25519")
    try:
        Ed25519PublicKey.from_public_bytes(_decoded(key["x"])).verify(token.signature, token.signed)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature("its signature does not verify") from error


def _decoded(part: str) -> bytes:
    """Base64url without padding, in its one spelling."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", part) or len(part) % 4 == 1:
        raise BadSignature("it is not written in base64url")
    data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise BadSignature("it is not written in base64url")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member is given twice")
    return dict(pairs)
