"""Signed decisions and revocations, and every way of bending one that needs no private key of the service."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from joserfc.jwk import OKPKey

from approval.decision import sign
from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Decision, PolicyRef, Revocation, Verdict
from contracts.canonical import canonical_json
from contracts.lifecycle import Stage, TransitionKind
from kit.keys import public_jwks

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = f"sha256:{'1' * 64}"
Bend = Callable[[str, OKPKey], str]


def new_key(kid: str | None = None) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid} if kid else None, auto_kid=kid is None)


def decision(**changes: Any) -> Decision:
    given: dict[str, Any] = {
        "transition_id": "t-1",
        "kind": TransitionKind.PROMOTION,
        "workspace": "default",
        "model": "fraud",
        "version": 1,
        "digest": DIGEST,
        "artifact_digest": DIGEST,
        "from_stage": Stage.STAGING,
        "to_stage": Stage.PRODUCTION,
        "decision_id": "d-1",
        "verdict": Verdict.APPROVED,
        "reason": "approved by ben",
        "requested_by": "ana",
        "policies": (PolicyRef(name="production", revision=1, digest=DIGEST),),
        "gates": (),
        "votes": (),
        "inputs_digest": DIGEST,
        "request_digest": DIGEST,
        "decided_at": AT,
        "expires_at": AT + timedelta(minutes=15),
    }
    return Decision(**(given | changes))


def revocation(**changes: Any) -> Revocation:
    given: dict[str, Any] = {
        "revocation_id": "r-1",
        "workspace": "default",
        "model": "fraud",
        "version": 1,
        "digest": DIGEST,
        "artifact_digest": DIGEST,
        "revoked_by": "rita",
        "reason": "biased",
        "fallback": None,
        "revoked_at": AT,
    }
    return Revocation(**(given | changes))


def publish(path: Path, *keys: OKPKey | tuple[OKPKey, dict[str, Any]]) -> None:
    """A JWKS of these keys, each with more members where they are given."""
    found: list[dict[str, Any]] = []
    for one in keys:
        key, more = one if isinstance(one, tuple) else (one, {})
        members: Any = public_jwks(key)["keys"]
        found += [{**member, **more} for member in members]
    path.write_text(json.dumps({"keys": found}))


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signed_as(header: dict[str, Any], payload: bytes, key: OKPKey) -> str:
    """A true signature under any header, made without the library that reads it."""
    text = f"{b64(json.dumps(header))}.{b64(payload)}"
    private: Any = key.private_key
    return f"{text}.{b64(private.sign(text.encode()))}"


def _headed(**changes: Any) -> Bend:
    """The same payload, truly signed, under another header."""

    def bend(token: str, key: OKPKey) -> str:
        header = {"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE} | changes
        return signed_as({k: v for k, v in header.items() if v is not ...}, unb64(token.split(".")[1]), key)

    return bend


def _lied(header: Any) -> Bend:
    """Another header before the payload and the signature of the token."""

    def bend(token: str, key: OKPKey) -> str:
        told = {"kid": key.kid, "typ": DECISION_TYPE, **header} if isinstance(header, dict) else header
        return ".".join([b64(json.dumps(told)), *token.split(".")[1:]])

    return bend


def _parts(*order: int) -> Bend:
    return lambda token, key: ".".join(token.split(".")[n] for n in order)


def _payload(change: Callable[[bytes], bytes]) -> Bend:
    """Another payload under the header and the signature of the token."""

    def bend(token: str, key: OKPKey) -> str:
        header, payload, signature = token.split(".")
        return f"{header}.{b64(change(unb64(payload)))}.{signature}"

    return bend


def _hmac(token: str, key: OKPKey) -> str:
    """The classic confusion: the public key as the secret of an HMAC."""
    header = {"alg": "HS256", "kid": key.kid, "typ": DECISION_TYPE}
    text = f"{b64(json.dumps(header))}.{token.split('.')[1]}"
    secret = unb64(str(key.as_dict(private=False)["x"]))
    return f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"


def _stranger(token: str, key: OKPKey) -> str:
    """Signed by a key of somebody else, who calls it by the name of ours."""
    other = new_key(str(key.kid))
    return signed_as({"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE}, unb64(token.split(".")[1]), other)


def _brought(token: str, key: OKPKey) -> str:
    """A token that brings the key that it is signed with."""
    other = new_key(str(key.kid))
    return _headed(jwk=other.as_dict(private=False))(token, other)


def _model(of: Any) -> Callable[[bytes], bytes]:
    return lambda _: canonical_json(of.model_dump(mode="json"))


# What is bent, how, and the code that it is refused with.
BENT: dict[str, tuple[Bend, str]] = {
    "nothing": (lambda token, key: "", "malformed"),
    "only dots": (lambda token, key: "..", "malformed"),
    "no base64": (lambda token, key: "a.b.c", "malformed"),
    "no ASCII": (lambda token, key: "é" + token, "malformed"),
    "far too long": (lambda token, key: token + "A" * 1_100_000, "malformed"),
    "header is a list": (_lied(["alg", "kid", "typ"]), "malformed"),
    "header is a text": (_lied("alg kid typ"), "malformed"),
    "header is a number": (_lied(5), "malformed"),
    "alg none": (lambda token, key: _lied({"alg": "none"})(token, key).rpartition(".")[0] + ".", "bad-signature"),
    "alg None": (_lied({"alg": None}), "bad-signature"),
    "alg HS256, with the public key": (_hmac, "bad-signature"),
    "alg HS256, with our signature": (_lied({"alg": "HS256"}), "bad-signature"),
    "alg RS256": (_lied({"alg": "RS256"}), "bad-signature"),
    "alg missing": (_lied({}), "malformed"),
    "typ missing": (_headed(typ=...), "malformed"),
    "typ of a token": (_headed(typ="JWT"), "malformed"),
    "typ of a revocation": (_headed(typ=REVOCATION_TYPE), "malformed"),
    "typ in capitals": (_headed(typ=DECISION_TYPE.upper()), "malformed"),
    "typ twice": (_headed(typ=[DECISION_TYPE, "JWT"]), "malformed"),
    "kid missing": (_headed(kid=...), "malformed"),
    "kid empty": (_headed(kid=""), "unknown-key"),
    "kid null": (_headed(kid=None), "malformed"),
    "kid of several": (_lied({"alg": "EdDSA", "kid": ["a", "b"]}), "malformed"),
    "kid of nobody": (_headed(kid="nobody"), "unknown-key"),
    "kid of another's key": (_stranger, "bad-signature"),
    "brings its own key": (_brought, "malformed"),
    "says where its key is": (_headed(jku="http://127.0.0.1:1/keys"), "malformed"),
    "critical extension": (_headed(crit=["exp"], exp=1), "malformed"),
    "payload not encoded": (_lied({"alg": "EdDSA", "b64": False, "crit": ["b64"]}), "malformed"),
    "truncated signature": (lambda token, key: token[:-10], "bad-signature"),
    "truncated by one character": (lambda token, key: token[:-1], "bad-signature"),
    "no signature": (lambda token, key: token.rpartition(".")[0] + ".", "bad-signature"),
    "two parts": (_parts(0, 1), "malformed"),
    "one part": (_parts(0), "malformed"),
    "payload missing": (lambda token, key: "{0}..{2}".format(*token.split(".")), "bad-signature"),
    "payload truncated": (_payload(lambda payload: payload[:-20]), "bad-signature"),
    "payload first": (_parts(1, 0, 2), "malformed"),
    "signature second": (_parts(0, 2, 1), "malformed"),
    "signature first": (_parts(2, 0, 1), "malformed"),
    "backwards": (_parts(2, 1, 0), "malformed"),
    "header twice": (_parts(0, 0, 2), "bad-signature"),
    "four parts": (_parts(0, 1, 2, 2), "malformed"),
    "something after it": (lambda token, key: token + "x", "bad-signature"),
    "a line after it": (lambda token, key: token + "\n", "bad-signature"),
    "padded": (lambda token, key: token + "==", "bad-signature"),
    "payload of another model": (_payload(_model(decision(model="churn"))), "bad-signature"),
    "payload of another workspace": (_payload(_model(decision(workspace="other"))), "bad-signature"),
    "payload of another version": (_payload(_model(decision(version=2))), "bad-signature"),
    "payload of another transition": (_payload(_model(decision(transition_id="t-2"))), "bad-signature"),
    "payload with another verdict": (_payload(_model(decision(verdict=Verdict.REJECTED))), "bad-signature"),
    "payload in another order": (
        _payload(lambda payload: json.dumps(dict(reversed(json.loads(payload).items()))).encode()),
        "bad-signature",
    ),
    "signature of another decision": (
        lambda token, key: f"{token.rpartition('.')[0]}.{sign(decision(version=2), key).rpartition('.')[2]}",
        "bad-signature",
    ),
    "signed, but a revocation": (
        lambda token, key: signed_as(
            {"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE},
            canonical_json(revocation().model_dump(mode="json")),
            key,
        ),
        "malformed",
    ),
    "a revocation": (lambda token, key: sign(revocation(), key), "malformed"),
    "signed, but empty": (
        lambda token, key: signed_as({"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE}, b"{}", key),
        "malformed",
    ),
    "signed, but no JSON": (
        lambda token, key: signed_as({"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE}, b"not json", key),
        "malformed",
    ),
    "signed, but says more": (
        lambda token, key: signed_as(
            {"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE},
            canonical_json({**decision().model_dump(mode="json"), "extra": 1}),
            key,
        ),
        "malformed",
    ),
    "signed, but without end": (
        lambda token, key: signed_as({"alg": "EdDSA", "kid": key.kid, "typ": DECISION_TYPE}, b"[" * 100_000, key),
        "malformed",
    ),
}
