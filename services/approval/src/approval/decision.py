"""The signed decision: a compact JWS (RFC 7515) with Ed25519 (RFC 8037) over the canonical JSON of a `Decision`."""

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from pydantic import ValidationError

from contracts.approval import DECISION_TYPE, Decision
from contracts.canonical import canonical_json

ALGORITHM = "EdDSA"


class _Registry(jws.JWSRegistry):
    # joserfc's own bound of 128 kB is below what a decision with many gates and comments may reach.
    max_payload_length = 750_000


class BadDecision(ValueError):
    """A text that is no decision signed by one of the keys."""


def sign(decision: Decision, key: OKPKey) -> str:
    """The compact JWS over `decision`."""
    header = {"alg": ALGORITHM, "kid": key.kid, "typ": DECISION_TYPE}
    payload = canonical_json(decision.model_dump(mode="json"))
    return jws.serialize_compact(header, payload, key, registry=_Registry(algorithms=[ALGORITHM]))


def verify(text: str, keys: KeySet) -> Decision:
    """The decision that `text` carries.

    Raises:
        BadDecision: the signature, its algorithm, type or key id is wrong, or the payload is no decision.
    """
    try:
        found = jws.extract_compact(text.encode(), registry=_Registry(algorithms=[ALGORITHM]))
        header = found.headers()
        if header.get("alg") != ALGORITHM or header.get("typ") != DECISION_TYPE:
            raise BadDecision(f"header says alg={header.get('alg')!r} typ={header.get('typ')!r}")
        # Named by id only: a key set must not be tried key by key, nor a lone key be taken for granted.
        key = next((k for k in keys.keys if k.kid == header.get("kid")), None)
        if not isinstance(key, OKPKey):
            raise BadDecision(f"no key {header.get('kid')!r} is known")
        checked = jws.deserialize_compact(text, key, registry=_Registry(algorithms=[ALGORITHM]))
        return Decision.model_validate_json(checked.payload)
    except ValidationError as error:
        raise BadDecision("the payload is no decision") from error
    except (JoseError, ValueError) as error:
        raise error if isinstance(error, BadDecision) else BadDecision(f"the signature was refused: {error}") from error
