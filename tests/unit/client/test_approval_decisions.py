"""Decisions verified from a saved record and saved keys, with no network."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.support.fake_approval import ID, Run, Service

from contracts.approval import DECISION_TYPE, Decision, PolicyRef, RequestDecided, Verdict
from contracts.canonical import canonical_json
from contracts.lifecycle import TransitionKind
from contracts.registry import Criterion
from hallmark import HallmarkError
from hallmark.decisions import read_keys, read_record, verify_record
from policy.binding import digest_of_transition
from policy.document import digest_of, parse

AT = datetime(2026, 1, 14, 12, tzinfo=UTC)
DIGEST = f"sha256:{'1' * 64}"
POLICY = parse(
    """
kind: PromotionPolicy
metadata: {name: production}
spec:
  match: {transition: {to: Production}}
  gates: [{id: auc, cel: 'candidate.metrics.auc >= 0.9'}]
"""
)
INPUTS: dict[str, Any] = {
    "candidate": {
        "version": 3,
        "digest": DIGEST,
        "artifact": {"digest": DIGEST},
        "metrics": {"auc": 0.95},
        "registered_by": "ana",
    },
    "baseline": None,
    "model": {"workspace": "default", "name": "fraud", "owner": "", "description": "", "tags": {}},
    "request": {
        "transition_id": ID,
        "model": "fraud",
        "kind": "promotion",
        "from": "Staging",
        "to": "Production",
        "reason": "better",
        "requested_by": "ana",
        "fields": {},
        "change_class": "normal",
        "expires_at": (AT + timedelta(hours=1)).isoformat(),
        "policy_editors": [],
    },
}


class Signer:
    """One key, by its id."""

    def __init__(self, kid: str = "k-1") -> None:
        self.kid, self._key = kid, Ed25519PrivateKey.generate()

    def jwks(self, **more: Any) -> dict[str, Any]:
        public = self._key.public_key().public_bytes_raw()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": encoded(public), "kid": self.kid, **more}]}

    def sign(self, payload: bytes) -> str:
        header = json.dumps({"alg": "EdDSA", "kid": self.kid, "typ": DECISION_TYPE}).encode()
        signed = f"{encoded(header)}.{encoded(payload)}"
        return f"{signed}.{encoded(self._key.sign(signed.encode()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def record_of(signer: Signer, inputs: dict[str, Any]) -> RequestDecided:
    decision = Decision(
        transition_id=ID,
        kind=TransitionKind.PROMOTION,
        workspace="default",
        model="fraud",
        version=3,
        digest=DIGEST,
        artifact_digest=DIGEST,
        from_stage="Staging",
        to_stage="Production",
        decision_id="d-1",
        verdict=Verdict.APPROVED,
        reason="no approval is asked for",
        requested_by="ana",
        policies=(PolicyRef(name="production", revision=1, digest=POLICY.digest),),
        gates=(
            Criterion(
                gate="production/auc",
                expression="candidate.metrics.auc >= 0.9",
                result="pass",
                message="candidate.metrics.auc = 0.95",
            ),
        ),
        votes=(),
        inputs_digest=digest_of(inputs),
        request_digest=DIGEST,
        decided_at=AT,
        expires_at=AT + timedelta(hours=1),
    )
    bound = digest_of_transition(decision, decision.policies, decision.inputs_digest)
    decision = decision.model_copy(update={"request_digest": bound})
    jws = signer.sign(canonical_json(decision.model_dump(mode="json")))
    return RequestDecided(decision=decision, jws=jws, inputs=inputs, documents={POLICY.digest: POLICY.text})


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def record(signer: Signer) -> RequestDecided:
    return record_of(signer, INPUTS)


def failed(record: RequestDecided, keys: dict[str, Any]) -> set[str]:
    found = verify_record(record, keys)
    names = {check.name for check in found.checks if check.result == "failed"}
    assert found.verified is not bool(names)
    return names


def test_a_good_record_is_verified_and_says_what_was_decided(record: RequestDecided, signer: Signer) -> None:
    found = verify_record(record, signer.jwks())
    assert found.verified, found.checks
    assert (found.about, found.verdict) == ("fraud version 3: Staging -> Production", "approved")
    assert {"signature", "key", "payload", "inputs", "gate production/auc", "verdict"} <= {c.name for c in found.checks}


def test_what_does_not_follow_from_its_inputs_is_not_verified(signer: Signer) -> None:
    """Signed by the right key: whoever holds it still cannot decide against the policy unseen."""
    worse = {**INPUTS, "candidate": {**INPUTS["candidate"], "metrics": {"auc": 0.5}}}
    assert failed(record_of(signer, worse), signer.jwks()) >= {"gate production/auc", "verdict"}


def test_keys_that_do_not_count_are_told(record: RequestDecided, signer: Signer) -> None:
    assert failed(record, Signer().jwks()) == {"signature"}
    assert "signature" in failed(record, Signer("other").jwks())
    assert failed(record, signer.jwks(revoked={"revoked_at": 1, "reason": "compromised"})) == {"key"}
    assert failed(record, signer.jwks(exp=int(AT.timestamp()) - 3_600)) == {"key"}


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def told(service: Service, record: RequestDecided, signer: Signer) -> None:
    service.answers["GET /.well-known/jwks.json"] = (200, signer.jwks())
    service.answers[f"GET /v1/requests/{ID}/record"] = (200, record.model_dump(mode="json"))


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> tuple[str, str]:
    """A record and its keys, as the commands save them."""
    record, keys = tmp_path / "decision.json", tmp_path / "keys.json"
    assert run("decision", "save", ID, str(record))[0] == 0
    keys.write_text(run("key", "list", "--json")[1])
    return str(record), str(keys)


def test_a_decision_is_shown_saved_and_verified_without_a_service(
    run: Run, service: Service, saved: tuple[str, str]
) -> None:
    code, out, _ = run("decision", "show", ID)
    assert code == 0
    assert "fraud version 3: Staging -> Production: approved" in out
    assert "candidate.metrics.auc >= 0.9" in out
    assert run("decision", "verify", ID)[0] == 0
    service.asked.clear()
    record, keys = saved
    for words in ((record, "--keys", keys, "--offline"), (record, "--keys", keys)):
        code, out, _ = run("decision", "verify", *words)
        assert code == 0
        assert out.splitlines()[-1].startswith("verified: fraud version 3: Staging -> Production: approved")
    told = json.loads(run("decision", "verify", record, "--keys", keys, "--json")[1])
    assert (told["verified"], told["request_id"]) == (True, ID)
    assert service.asked == []


def test_a_record_that_was_changed_is_exit_1_and_the_check_is_named(run: Run, saved: tuple[str, str]) -> None:
    record, keys = saved
    text = Path(record).read_text()
    for old, new, check in (('"auc":0.95', '"auc":0.96', "inputs"), ('"version":3', '"version":4', "payload")):
        assert old in text
        Path(record).write_text(text.replace(old, new))
        code, out, _ = run("decision", "verify", record, "--keys", keys, "--offline")
        assert code == 1
        assert "NOT VERIFIED" in out
        assert [line for line in out.splitlines() if line.startswith(check) and "failed" in line], out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("t-9", "--offline"), "decision save"),
        (("RECORD", "--offline"), "key list --json"),
        (("nothing.json", "--offline"), "no file"),
    ],
)
def test_offline_says_what_it_needs(run: Run, saved: tuple[str, str], words: tuple[str, ...], hint: str) -> None:
    given = [saved[0] if word == "RECORD" else word for word in words]
    code, _, err = run("decision", "verify", *given)
    assert code == 2
    assert hint in err


def test_files_that_are_something_else_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for text in ("", "[1]", "{}", "\x00", "[" * 100_000):
        file.write_text(text)
        for read in (read_record, read_keys):
            with pytest.raises(HallmarkError) as caught:
                read(file)
            assert caught.value.code == "invalid-file"
