"""Signed documents: a compact JWS (RFC 7515) with Ed25519 (RFC 8037) over the canonical JSON of a payload.

The header says `alg`, `kid` and `typ`, and nothing else. `typ` keeps documents of one kind from passing for another's.
"""

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key, OKPKey
from pydantic import BaseModel, ValidationError

from contracts.canonical import canonical_json
from contracts.envelope import explain
from contracts.keys import not_counting
from kit.auth import KeySource

# RFC 9864 prefers the name "Ed25519"; most verifiers in the field know "EdDSA" only.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")
ALGORITHM = "EdDSA"
MAX_LENGTH = 1_000_000  # as in `contracts.payload.Jws`
Code = Literal["malformed", "unknown-key", "bad-signature", "revoked-key", "stale-key"]
Model = TypeVar("Model", bound=BaseModel)


class _Registry(jws.JWSRegistry):
    # joserfc stops at 128 kB; a decision with many gates and comments is longer.
    max_payload_length = MAX_LENGTH


JWS = _Registry(algorithms=[ALGORITHM])


class TooLong(ValueError):
    """A document is larger than an event may carry once it is signed."""


class Refused(ValueError):
    """A text that is no such document, or that no key signed which counts. `code` is stable, the text is for people."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def sign(document: BaseModel, typ: str, key: OKPKey) -> str:
    """Raises TooLong when it would be longer than an event may carry."""
    header = {"alg": ALGORITHM, "kid": key.kid, "typ": typ}
    payload = canonical_json(document.model_dump(mode="json"))
    if len(payload) * 4 // 3 > MAX_LENGTH - 500:
        raise TooLong(f"{len(payload)} bytes are too many to sign")
    return jws.serialize_compact(header, payload, key, registry=JWS)


async def read(token: str, typ: str, model: type[Model], keys: KeySource, dated: Callable[[Model], datetime]) -> Model:
    """The document that `token` signs, by a key that counted at the time that it is `dated`.

    Raises:
        Refused: it is none. A revoked key counts at no time: whoever stole it can write any date.
        Transient: the keys cannot be read.
    """
    kid = kid_of(token, typ)
    key = await keys.find(kid)
    if key is None:
        raise Refused("unknown-key", f"it is signed by the key {kid}, which is not published")
    document = verify(token, model, key)
    if why := not_counting(key.dict_value, dated(document)):
        raise Refused(*why)
    return document


def kid_of(token: str, typ: str) -> str:
    """The key that a token says it is signed by. Raises Refused unless it is of that type."""
    try:
        header = jws.extract_compact(token.encode(), registry=JWS).headers()
    except (JoseError, ValueError) as error:
        raise Refused("malformed", "it is no compact JWS") from error
    # A key is named by its id only: a set must not be tried key by key, nor a lone key be taken for granted.
    kid = header.get("kid") if isinstance(header, dict) else None
    if not isinstance(kid, str) or set(header) != {"alg", "kid", "typ"}:
        raise Refused("malformed", "its header does not say exactly alg, kid and typ")
    if header["typ"] != typ:
        raise Refused("malformed", f"its type is not {typ}")
    return kid


def verify(token: str, model: type[Model], key: Key) -> Model:
    """What the token signs with that key. Raises Refused."""
    try:
        return model.model_validate_json(jws.deserialize_compact(token, key, registry=JWS).payload)
    except JoseError as error:
        raise Refused("bad-signature", "its signature does not verify") from error
    except ValidationError as error:
        raise Refused("malformed", f"what it signs is no {model.__name__}: {explain(error)}") from error
