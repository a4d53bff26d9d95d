"""Reading what the approval service signed. Trust in the topic is not enough (law 5): only the signature counts."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Decision, Revocation
from contracts.payload import Payload
from kit import signed
from kit.auth import KeySource
from kit.errors import Permanent

Document = TypeVar("Document", bound=Payload)


class DecisionReader:
    """A document counts while its key is not revoked, and not with a date on which its key signed no more.

    Raises (from every read):
        Permanent: `decision-` or `revocation-` with malformed (of another type, too), bad-signature, unknown-key,
            revoked-key or stale-key.
        Transient: the keys cannot be read.
    """

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def read(self, token: str) -> Decision:
        """The decision that `token` (a compact JWS, EdDSA) signs."""
        return await self._read("decision", token, DECISION_TYPE, Decision, lambda decision: decision.decided_at)

    async def read_revocation(self, token: str) -> Revocation:
        """The revocation that `token` (a compact JWS, EdDSA) signs."""
        return await self._read("revocation", token, REVOCATION_TYPE, Revocation, lambda order: order.revoked_at)

    async def _read(
        self, what: str, token: str, typ: str, model: type[Document], dated: Callable[[Document], datetime]
    ) -> Document:
        try:
            return await signed.read(token, typ, model, self._keys, dated)
        except signed.Refused as error:
            raise Permanent(f"{what}-{error.code}", f"the {what} was refused: {error.detail}") from error
