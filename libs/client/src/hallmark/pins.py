"""Pins: the registry's signed answer to "what should be served", checked without asking anybody.

>>> keys = client.serving_keys()                     # once, kept where the server is built or configured
>>> claims = hallmark.pins.verify(pin.pin, keys, model="fraud", target="Production")
>>> claims.version, claims.artifact_digest
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from hallmark.errors import HallmarkError

PIN_TYPE = "hallmark-pin+jws"
REVOCATION_TYPE = "hallmark-revocation+jws"
ALGORITHMS = ("EdDSA", "Ed25519")  # RFC 8037 and RFC 9864 name the same thing
PART = re.compile(r"[A-Za-z0-9_-]+")
CLOCK_SKEW = timedelta(minutes=5)
Keys = Mapping[str, Any] | str | Path


class PinClaims(BaseModel):
    """What the registry signed: at `iat` (seconds since 1970), `target` of the model was this version.

    `digest` covers everything registered of the version, `artifact_digest` its bytes: of one file, or of the manifest
    of a directory. `sequence` grows with every change of the target, and begins anew with a higher `epoch`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    workspace: str
    model: str
    target: str
    version: int
    digest: str
    artifact_digest: str
    status: str
    sequence: int
    epoch: int = 0
    iat: int

    @property
    def issued_at(self) -> datetime:
        return datetime.fromtimestamp(self.iat, UTC)


def verify(
    pin: str,
    keys: Keys,
    *,
    workspace: str | None = None,
    model: str | None = None,
    target: str | None = None,
    max_age: timedelta | None = None,
) -> PinClaims:
    """The claims of a pin (compact JWS, RFC 7515, Ed25519) that one of `keys` signed.

    `keys`: the JWKS of `GET /v1/keys/serving`, or the path of a file that holds it. A stage's capitals do not matter.

    Raises:
        HallmarkError: code `pin-malformed`, `pin-unknown-key`, `pin-forged`, `pin-mismatch` (it is for something else),
            `pin-expired` (older than `max_age`, or from the future).
    """
    try:
        claims = PinClaims.model_validate_json(_signed(pin, keys, PIN_TYPE))
    except ValidationError as error:
        raise HallmarkError("pin-malformed", f"the pin says something else than expected: {error}") from error
    for name, wanted in (("workspace", workspace), ("model", model), ("target", target)):
        found = getattr(claims, name)
        if wanted is not None and not _same(found, wanted):
            raise HallmarkError("pin-mismatch", f"the pin is for {name} {found!r}, not {wanted!r}")
    age = datetime.now(UTC) - claims.issued_at
    if max_age is not None and not -CLOCK_SKEW <= age <= max_age:
        raise HallmarkError("pin-expired", f"the pin was issued at {claims.issued_at.isoformat()}")
    return claims


def verify_revocation(signed: str, keys: Keys, *, workspace: str, model: str | None, version: int | None) -> None:
    """Returns if one of `keys` signed that nobody may use this version any more.

    Raises:
        HallmarkError: code `pin-malformed`, `pin-unknown-key`, `pin-forged`, `pin-mismatch`.
    """
    try:
        said = json.loads(_signed(signed, keys, REVOCATION_TYPE))
    except ValueError as error:
        raise HallmarkError("pin-malformed", "the revocation is no JSON") from error
    for name, wanted in (("workspace", workspace), ("model", model), ("version", version)):
        if not isinstance(said, dict) or said.get(name) != wanted:
            raise HallmarkError("pin-mismatch", f"the revocation is for something else than {name} {wanted!r}")


def _signed(token: str, keys: Keys, kind: str) -> bytes:
    """What one of `keys` signed as this kind of token."""
    header, payload, signature, signed = _parts(token)
    if header.get("typ") != kind or header.get("alg") not in ALGORITHMS or "crit" in header:
        raise HallmarkError("pin-malformed", f"the token is no {kind.removesuffix('+jws')}: its header is {header}")
    try:
        _key(keys, header.get("kid")).verify(signature, signed)
    except InvalidSignature as error:
        raise HallmarkError("pin-forged", "the signature does not verify: it was changed, or is not ours") from error
    return payload


def _same(found: str, wanted: str) -> bool:
    return found == wanted or (not found.startswith("@") and found.lower() == wanted.lower())


def _parts(pin: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Header, payload, signature, and the bytes that were signed."""
    parts = pin.split(".")
    if len(parts) != 3 or not all(PART.fullmatch(part) for part in parts):
        raise HallmarkError("pin-malformed", "the pin is no compact JWS")
    try:
        header, payload, signature = (_decode(part) for part in parts)
        read = json.loads(header)
    except ValueError as error:
        raise HallmarkError("pin-malformed", "the pin is no compact JWS") from error
    if not isinstance(read, dict):
        raise HallmarkError("pin-malformed", "the pin is no compact JWS")
    return read, payload, signature, pin.rpartition(".")[0].encode()


def _decode(text: str) -> bytes:
    """Strict: one spelling only, so that no character of a pin can be changed unnoticed."""
    value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(value).rstrip(b"=").decode() != text:
        raise binascii.Error("not in its shortest form")
    return value


def _key(keys: Keys, kid: object) -> Ed25519PublicKey:
    try:
        read = keys if isinstance(keys, Mapping) else json.loads(Path(keys).read_text())
        for key in read["keys"]:
            if key.get("kid") == kid and (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519"):
                return Ed25519PublicKey.from_public_bytes(_decode(key["x"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise HallmarkError("pin-unknown-key", f"the keys cannot be read: {error}") from error
    raise HallmarkError("pin-unknown-key", f"none of the keys has the id {kid!r}")
