"""DSSE (Dead Simple Signing Envelope 1.0): a payload, its type and signatures, in JSON. Pure: `cryptography` only.

What is signed is the pre-authentication encoding `DSSEv1 LEN(type) type LEN(payload) payload`, so a signature is good
for one type only. It never looks like a checkpoint: an origin has no space.
"""

import json
from base64 import b64decode, b64encode
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit.note import ED25519, NoteError, parse_vkey

EXPORT = "application/vnd.hallmark.export+json"
ARCHIVE = "application/vnd.hallmark.archive+json"
BUNDLE = "application/vnd.hallmark.bundle+json"
IN_TOTO = "application/vnd.in-toto+json"
MAX_ENVELOPE = 64 << 20


class ManifestError(ValueError):
    """A manifest that is malformed, not signed by the key asked for, or not of these files; the text says which."""


class BytesSigner(Protocol):
    """The log's Ed25519 key, wherever it is: a `CheckpointSigner` is one."""

    @property
    def vkeys(self) -> list[str]:
        """The key lines, the Ed25519 one first; known once something was signed."""

    async def sign_bytes(self, data: bytes) -> bytes:
        """The Ed25519 signature over exactly these bytes, which begin with `DSSEv1 `."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


async def seal(payload_type: str, document: dict[str, Any], signer: BytesSigner) -> bytes:
    """The signed envelope of a document, as JSON. Same document, same key: same bytes."""
    payload = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signature = await signer.sign_bytes(pae(payload_type, payload))
    envelope = {
        "payloadType": payload_type,
        "payload": b64encode(payload).decode(),
        "signatures": [{"keyid": key_id_of(signer.vkeys[0]), "sig": b64encode(signature).decode()}],
    }
    return json.dumps(envelope, indent=1, sort_keys=True).encode() + b"\n"


def key_id_of(vkey: str) -> str:
    """The first two parts of a key line, `NAME+HEX`."""
    return "+".join(vkey.split("+", 2)[:2])


def unseal(envelope: bytes, payload_type: str, vkey: str) -> dict[str, Any]:
    """The document in an envelope.

    Raises:
        ManifestError: it is malformed, of another type, or the key of the line `vkey` has not signed it.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise ManifestError("the envelope is too large")
    try:
        public = _public(vkey)
        found = json.loads(envelope)
        kind, payload = found["payloadType"], b64decode(found["payload"], validate=True)
        signatures = [b64decode(one["sig"], validate=True) for one in found["signatures"]]
    except NoteError as error:
        raise ManifestError(str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(f"not a signed envelope: {error!r}"[:500]) from error
    if kind != payload_type:
        raise ManifestError(f"an envelope of {kind!r}, not of {payload_type}"[:500])
    for signature in signatures:
        try:
            public.verify(signature, pae(payload_type, payload))
        except InvalidSignature:
            continue
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ManifestError("the payload is no JSON") from error
        if not isinstance(document, dict):
            raise ManifestError("the payload is no JSON object")
        return document
    raise ManifestError("the key has not signed this envelope")


def _public(vkey: str) -> Ed25519PublicKey:
    """Raises NoteError when the line is not that of an Ed25519 key."""
    if parse_vkey(vkey).kind != ED25519:
        raise NoteError("envelopes are signed with the log's Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(b64decode(vkey.strip().split("+", 2)[2])[1:])
