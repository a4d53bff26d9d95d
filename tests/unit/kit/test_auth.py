"""Tokens: each way of forging or bending one is refused with 401 and a stable code, and nothing else happens."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from contracts.keys import LEEWAY_SECONDS
from kit.auth import KeySource, Verifier
from kit.keys import ensure_key, make_token, public_jwks
from kit.problems import Problem


@pytest.fixture
def key(tmp_path: Path) -> OKPKey:
    return ensure_key(tmp_path, "auth")


@pytest.fixture
def verifier(tmp_path: Path, key: OKPKey) -> Verifier:
    return Verifier(KeySource(str(tmp_path / "auth.jwks.json")), issuer="hallmark", audience="hallmark")


def signed(key: OKPKey, header: dict[str, Any] | None = None, **changes: Any) -> str:
    at = int(time.time())
    claims = {"iss": "hallmark", "aud": "hallmark", "sub": "ana", "iat": at, "exp": at + 60, "groups": ["ml"]}
    claims |= changes
    claims = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode({"alg": "EdDSA", "kid": key.kid} | (header or {}), claims, key, algorithms=["EdDSA"])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: object, token: str, signature: bytes = b"") -> str:
    """A token with another header over the claims of a good one."""
    return f"{b64(json.dumps(header).encode())}.{token.split('.')[1]}.{b64(signature)}"


async def refused(verifier: Verifier, authorization: str | None) -> str:
    with pytest.raises(Problem) as caught:
        await verifier.principal(authorization)
    assert caught.value.status == 401
    for part in (authorization or "").split(".")[1:]:
        assert len(part) < 8 or part not in caught.value.detail, "the token must not leak into the answer"
    return caught.value.code


@pytest.mark.parametrize(("said", "proved"), [(True, True), (False, False), ("true", False), (..., False)])
async def test_a_mailbox_is_proved_by_who_says_so_only(
    verifier: Verifier, key: OKPKey, said: object, proved: bool
) -> None:
    token = signed(key, email="ana@example.org", email_verified=said)
    principal = await verifier.principal(f"Bearer {token}")
    assert (principal.email, principal.email_verified) == ("ana@example.org", proved)


async def test_a_good_token(verifier: Verifier, key: OKPKey) -> None:
    principal = await verifier.principal(f"Bearer {make_token(key, 'ana', ['ml-engineers'], kind='service')}")
    assert principal.subject == "ana"
    assert principal.groups == {"ml-engineers"}
    assert principal.kind == "service"
    assert abs(principal.issued_at - time.time()) < 5
    assert principal.authenticated_at == principal.issued_at
    assert principal.method == "token"


async def test_the_scheme_in_any_case_and_the_issuers_extras(verifier: Verifier, key: OKPKey) -> None:
    issued = int(time.time()) - 60
    token = signed(key, aud=["other", "hallmark"], iat=issued, auth_time=123, amr=["pwd", "otp", "pwd"])
    principal = await verifier.principal(f"bearer  {token} ")
    assert (principal.issued_at, principal.authenticated_at, principal.method) == (issued, 123, "pwd otp")


async def test_a_method_of_two_words_is_one_method(verifier: Verifier, key: OKPKey) -> None:
    principal = await verifier.principal(f"Bearer {signed(key, amr=['hardware  key', 'otp'])}")
    assert principal.method == "hardware-key otp"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "token abc"])
async def test_no_token(verifier: Verifier, header: str | None) -> None:
    assert await refused(verifier, header) == "unauthenticated"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": int(time.time()) - LEEWAY_SECONDS - 5}, "token-expired"),
        ({"exp": ...}, "token-invalid"),
        ({"exp": "tomorrow"}, "token-invalid"),
        ({"iat": ...}, "token-invalid"),
        ({"iat": int(time.time()) + 600}, "token-invalid"),
        ({"nbf": int(time.time()) + 600}, "token-invalid"),
        ({"iss": "evil"}, "token-invalid"),
        ({"iss": ...}, "token-invalid"),
        ({"aud": "other"}, "token-invalid"),
        ({"aud": ["other"]}, "token-invalid"),
        ({"aud": ...}, "token-invalid"),
        ({"sub": ...}, "token-invalid"),
        ({"sub": ""}, "token-invalid"),
        ({"sub": 5}, "token-invalid"),
        ({"sub": "a\nb"}, "token-invalid"),
        ({"sub": "x" * 201}, "token-invalid"),
        ({"sub": "Hallmark/registry"}, "token-invalid"),
        ({"groups": "ml-engineers"}, "token-invalid"),
        ({"groups": {"admin": 1}}, "token-invalid"),
        ({"groups": [1]}, "token-invalid"),
        ({"groups": None}, "token-invalid"),
        ({"kind": ["service"]}, "token-invalid"),
        ({"amr": []}, "token-invalid"),
        ({"auth_time": "noon"}, "token-invalid"),
        ({"auth_time": [1]}, "token-invalid"),
        ({"auth_time": -1}, "token-invalid"),
        ({"auth_time": float("inf")}, "token-invalid"),
        ({"auth_time": float("nan")}, "token-invalid"),
        ({"auth_time": int(time.time()) + 600}, "token-invalid"),
        ({"amr": "pwd"}, "token-invalid"),
        ({"amr": [" "]}, "token-invalid"),
        ({"amr": ["x" * 150, "y" * 150]}, "token-invalid"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),  # the same in every process
)
async def test_bent_claims(verifier: Verifier, key: OKPKey, changes: dict[str, Any], code: str) -> None:
    assert await refused(verifier, f"Bearer {signed(key, **changes)}") == code


async def test_signed_by_somebody_else(verifier: Verifier, key: OKPKey) -> None:
    other = OKPKey.generate_key("Ed25519", auto_kid=True)
    assert await refused(verifier, f"Bearer {signed(other)}") == "token-invalid"  # an unknown key id
    assert await refused(verifier, f"Bearer {signed(other, {'kid': key.kid})}") == "token-invalid"


async def test_a_key_of_another_kind_under_a_known_id(verifier: Verifier, key: OKPKey) -> None:
    claims = {"iss": "hallmark", "aud": "hallmark", "sub": "ana", "iat": 1, "exp": 2**33}
    for algorithm, forged in (
        ("ES256", ECKey.generate_key("P-256")),
        ("RS256", RSAKey.generate_key(2048)),
    ):
        token = jwt.encode({"alg": algorithm, "kid": key.kid}, claims, forged, algorithms=[algorithm])
        assert await refused(verifier, f"Bearer {token}") == "token-invalid"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", None, "EdDSA"])
async def test_algorithm_none(verifier: Verifier, key: OKPKey, name: str | None) -> None:
    assert await refused(verifier, f"Bearer {by_hand({'alg': name, 'kid': key.kid}, signed(key))}") == "token-invalid"


async def test_public_key_as_hmac_secret(verifier: Verifier, key: OKPKey) -> None:
    """The classic confusion: the verifier's public key is known to all, so it must never serve as a secret."""
    public = key.as_dict(private=False)
    secrets = [
        base64.urlsafe_b64decode(str(public["x"]) + "="),
        str(public["x"]).encode(),
        json.dumps(public_jwks(key)).encode(),
        key.as_pem(private=False),
        b"",
    ]
    for secret in secrets:
        for header in ({"alg": "HS256", "kid": key.kid}, {"alg": "HS256"}):
            unsigned = by_hand(header, signed(key)).rsplit(".", 1)[0]
            token = f"{unsigned}.{b64(hmac.new(secret, unsigned.encode(), hashlib.sha256).digest())}"
            assert await refused(verifier, f"Bearer {token}") == "token-invalid"
    token = jwt.encode(
        {"alg": "HS256", "kid": key.kid}, {"sub": "ana"}, OctKey.import_key(secrets[0]), algorithms=["HS256"]
    )
    assert await refused(verifier, f"Bearer {token}") == "token-invalid"


async def test_a_token_that_brings_its_own_key(verifier: Verifier, key: OKPKey) -> None:
    other = OKPKey.generate_key("Ed25519", auto_kid=True)
    header = {"jwk": other.as_dict(private=False), "jku": "http://127.0.0.1:1/evil"}
    assert await refused(verifier, f"Bearer {signed(other, header)}") == "token-invalid"
    assert await refused(verifier, f"Bearer {signed(other, {**header, 'kid': key.kid})}") == "token-invalid"


async def test_a_changed_claim_breaks_the_signature(verifier: Verifier, key: OKPKey) -> None:
    head, body, signature = signed(key).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    body = b64(json.dumps({**claims, "groups": ["admins"]}).encode())
    assert await refused(verifier, f"Bearer {head}.{body}.{signature}") == "token-invalid"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "...",
        "é.è.à",
        b64(b"[]") + ".e30.e30",
        b64(b"5") + ".e30.e30",
        b64(b"null") + ".e30.e30",
        b64(b'{"kid": {"a": 1}}') + ".e30.e30",
        b64(b'{"alg": ["EdDSA"]}') + ".e30.e30",
        b64(b"\xff\xfe") + ".e30.e30",
        b64(b"[" * 20_000) + ".e30.e30",
        b64(b'{"a":' * 20_000) + ".e30.e30",
        "=" * 50 + ".e30.e30",
    ],
    ids=lambda token: token[:20],
)
async def test_garbage(verifier: Verifier, token: str) -> None:
    assert await refused(verifier, f"Bearer {token}") == "token-invalid"
