"""What is signed: what verifies, and what must not. What the registry makes of it is in tests/unit/registry."""

import json
import re
from typing import Any

import pytest
from joserfc.jwk import KeySet
from tests.support.decisions import BENT, b64, decision, new_key, revocation, signed_as, unb64

from approval.decision import BadDecision, sign, verify
from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Decision, Revocation, Verdict
from contracts.canonical import canonical_json
from contracts.registry import Criterion
from kit.keys import public_jwks

KEY, OTHER = new_key(), new_key()
KEYS = KeySet.import_key_set(public_jwks(KEY))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("document", "typ"), [(decision(), DECISION_TYPE), (revocation(), REVOCATION_TYPE)], ids=["decision", "revocation"]
)
def test_round_trip_over_the_canonical_bytes(document: Any, typ: str) -> None:
    text = sign(document, KEY)
    assert verify(text, KEYS, type(document)) == document
    header, payload, _ = map(unb64, text.split("."))
    assert json.loads(header) == {"alg": "EdDSA", "kid": KEY.kid, "typ": typ}
    assert payload == canonical_json(document.model_dump(mode="json"))
    assert sign(document, KEY) == text, "Ed25519 signs the same in the same way"


def test_a_long_decision_survives() -> None:
    gates = tuple(Criterion(gate=f"p/{n}", expression="x" * 2_000, result="pass", message="y") for n in range(120))
    assert verify(sign(decision(gates=gates), KEY), KEYS).gates == gates


@pytest.mark.parametrize("changes", [{"version": 2}, {"verdict": Verdict.REJECTED}, {"to_stage": "Archived"}])
def test_a_tampered_payload(changes: dict[str, Any]) -> None:
    header, _, signature = sign(decision(), KEY).split(".")
    other = canonical_json(decision(**changes).model_dump(mode="json"))
    with pytest.raises(BadDecision, match="signature"):
        verify(f"{header}.{b64(other)}.{signature}", KEYS)


def test_one_kind_does_not_pass_for_the_other() -> None:
    with pytest.raises(BadDecision, match=re.escape(REVOCATION_TYPE)):
        verify(sign(decision(), KEY), KEYS, Revocation)
    with pytest.raises(BadDecision, match=re.escape(DECISION_TYPE)):
        verify(sign(revocation(), KEY), KEYS, Decision)


@pytest.mark.parametrize("how", BENT)
def test_forgeries(how: str) -> None:
    bend, _ = BENT[how]
    with pytest.raises(BadDecision):
        verify(bend(sign(decision(), KEY), KEY), KEYS)


def test_of_another_key() -> None:
    with pytest.raises(BadDecision, match="no key"):
        verify(sign(decision(), OTHER), KEYS)
    payload = canonical_json(decision().model_dump(mode="json"))
    with pytest.raises(BadDecision, match="signature"):
        verify(signed_as({"alg": "EdDSA", "kid": KEY.kid, "typ": DECISION_TYPE}, payload, OTHER), KEYS)
