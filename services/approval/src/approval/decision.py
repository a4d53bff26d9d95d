"""What the service signs: decisions and revocations, each a compact JWS of a type of its own."""

from typing import Any, TypeVar, overload

from joserfc.jwk import KeySet, OKPKey

from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Decision, Revocation
from kit import signed

TYPES: dict[type[Decision | Revocation], str] = {Decision: DECISION_TYPE, Revocation: REVOCATION_TYPE}
Document = TypeVar("Document", Decision, Revocation)


class BadDecision(ValueError):
    """A text that is no document of this kind, signed by one of the keys."""


def sign(document: Decision | Revocation, key: OKPKey) -> str:
    """The compact JWS over `document`. Raises TooLong."""
    return signed.sign(document, TYPES[type(document)], key)


@overload
def verify(text: str, keys: KeySet) -> Decision: ...
@overload
def verify(text: str, keys: KeySet, kind: type[Document]) -> Document: ...
def verify(text: str, keys: KeySet, kind: type[Any] = Decision) -> Any:
    """The document of that kind that `text` carries, whether or not its key still counts.

    Raises:
        BadDecision: the signature, its algorithm, type or key id is wrong, or the payload is none.
    """
    try:
        kid = signed.kid_of(text, TYPES[kind])
        key = next((key for key in keys if key.kid == kid), None)
        if key is None:
            raise BadDecision(f"no key {kid!r} is known")
        return signed.verify(text, kind, key)
    except signed.Refused as error:
        raise BadDecision(error.detail) from error
