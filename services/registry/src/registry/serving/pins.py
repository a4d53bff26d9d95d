"""Pins and revocations: the signed answers to "what should be served" and "must it not", checked offline by anybody."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from kit.keys import public_jwks

PIN_TYPE = "hallmark-pin+jws"
REVOCATION_TYPE = "hallmark-revocation+jws"


class PinSigner:
    """Signs with Ed25519. The same claims at the same second give the same pin."""

    def __init__(self, key: OKPKey) -> None:
        private = key.private_key
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("the serving key is not the private half of an Ed25519 key")
        self._key = private
        self.jwks = public_jwks(key)
        self._headers = {
            kind: _encode({"alg": "EdDSA", "kid": key.kid, "typ": kind}) for kind in (PIN_TYPE, REVOCATION_TYPE)
        }

    def sign(self, claims: dict[str, Any], kind: str = PIN_TYPE) -> str:
        """A compact JWS (RFC 7515) over the claims' JSON."""
        signed = b".".join((self._headers[kind], _encode(claims)))
        return (signed + b"." + _base64(self._key.sign(signed))).decode()


def _encode(value: dict[str, Any]) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _base64(value: bytes) -> bytes:
    return urlsafe_b64encode(value).rstrip(b"=")
