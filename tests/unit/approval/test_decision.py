"""The signed decision: what verifies, and what must not."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet, OctKey, OKPKey
from tests.unit.approval.conftest import AT, INPUTS_DIGEST, POLICY, asked, opened

from approval.decision import BadDecision, sign, verify
from contracts.approval import DECISION_TYPE, Decision, Verdict
from contracts.canonical import canonical_json
from contracts.registry import Criterion, Transition
from kit.keys import public_jwks

KEY = OKPKey.generate_key("Ed25519", auto_kid=True)
OTHER = OKPKey.generate_key("Ed25519", auto_kid=True)
KEYS = KeySet.import_key_set(public_jwks(KEY))  # type: ignore[arg-type]


def decision(**changes: Any) -> Decision:
    of = asked()
    given: dict[str, Any] = {
        **{name: getattr(of, name) for name in Transition.model_fields},
        "decision_id": "d-1",
        "verdict": Verdict.APPROVED,
        "reason": "approved by ben",
        "requested_by": "ana",
        "policies": (POLICY,),
        "gates": (),
        "votes": (),
        "inputs_digest": INPUTS_DIGEST,
        "request_digest": opened().request_digest,
        "decided_at": AT,
        "expires_at": AT + timedelta(minutes=15),
    }
    return Decision(**(given | changes))


def forge(header: dict[str, Any], payload: bytes, key: Any = KEY) -> str:
    return jws.serialize_compact(header, payload, key, algorithms=["EdDSA", "HS256"])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = {"alg": "EdDSA", "kid": KEY.kid, "typ": DECISION_TYPE}
BODY = canonical_json(decision().model_dump(mode="json"))


def test_round_trip_over_the_canonical_bytes() -> None:
    text = sign(decision(), KEY)
    assert verify(text, KEYS) == decision()
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in text.split("."))
    assert json.loads(header) == HEADER
    assert payload == BODY


def test_a_long_decision_survives() -> None:
    gates = tuple(Criterion(gate=f"p/{n}", expression="x" * 2_000, result="pass", message="y") for n in range(120))
    assert verify(sign(decision(gates=gates), KEY), KEYS).gates == gates


@pytest.mark.parametrize("changes", [{"version": 2}, {"verdict": Verdict.REJECTED}, {"to_stage": "Archived"}])
def test_a_tampered_payload(changes: dict[str, Any]) -> None:
    header, _, signature = sign(decision(), KEY).split(".")
    other = canonical_json(decision(**changes).model_dump(mode="json"))
    with pytest.raises(BadDecision, match="signature"):
        verify(f"{header}.{b64(other)}.{signature}", KEYS)


@pytest.mark.parametrize(
    "text",
    [
        forge({**HEADER, "typ": "JWT"}, BODY),
        forge({k: v for k, v in HEADER.items() if k != "typ"}, BODY),
        forge({k: v for k, v in HEADER.items() if k != "kid"}, BODY),
        forge({**HEADER, "kid": OTHER.kid}, BODY, OTHER),
        forge(HEADER, BODY, OTHER),
        forge({**HEADER, "alg": "HS256"}, BODY, OctKey.import_key(json.dumps(KEY.as_dict(private=False)))),
        f"{b64(json.dumps({**HEADER, 'alg': 'none'}).encode())}.{b64(BODY)}.",
        forge(HEADER, b"{}"),
        forge(HEADER, b"not json"),
        forge(HEADER, canonical_json({**decision().model_dump(mode="json"), "extra": 1})),
        "",
        "..",
        "a.b.c",
        "\u00e9",
        sign(decision(), KEY) + "x",
        sign(decision(), KEY).rpartition(".")[0] + ".",
    ],
)
def test_forgeries(text: str) -> None:
    with pytest.raises(BadDecision):
        verify(text, KEYS)
