"""Reading a signed decision. Trust in the topic is not enough (law 5): only the signature counts."""

import json

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from pydantic import ValidationError

from contracts.approval import DECISION_TYPE, Decision
from contracts.envelope import explain
from kit.auth import KeySource
from kit.errors import Permanent


class _Registry(JWSRegistry):
    """joserfc stops at 128 kB; a decision with many gates and comments is longer."""

    max_payload_length = 1_000_000


JWS = _Registry(algorithms=["EdDSA"])


class DecisionReader:
    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def read(self, token: str) -> Decision:
        """The decision that `token` (a compact JWS, EdDSA) signs.

        Raises:
            Permanent: forged, malformed, of another type, or signed by an unknown key.
        """
        try:
            header = jws.extract_compact(token.encode(), registry=JWS).headers()
        except (JoseError, ValueError) as error:
            raise Permanent("decision-malformed", "the decision is no compact JWS") from error
        if header.get("typ") != DECISION_TYPE:
            raise Permanent("decision-malformed", f"the JWS type is not {DECISION_TYPE}")
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise Permanent(
                "decision-unknown-key", "the decision is signed by a key the approval service does not publish"
            )
        try:
            payload = jws.deserialize_compact(token, key, registry=JWS).payload
            return Decision.model_validate(json.loads(payload), strict=False)
        except JoseError as error:
            raise Permanent("decision-bad-signature", "the decision's signature does not verify") from error
        except ValidationError as error:
            raise Permanent("decision-malformed", f"the signed decision: {explain(error)}") from error
        except ValueError as error:
            raise Permanent("decision-malformed", "the signed decision is not JSON") from error
