"""Pins: what the registry signed verifies, and nothing else does."""

import base64
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from hallmark import HallmarkError, pins
from kit.keys import ensure_key
from registry.serving.pins import PIN_TYPE, PinSigner

CLAIMS: dict[str, Any] = {
    "workspace": "default",
    "model": "fraud",
    "target": "Production",
    "version": 3,
    "digest": "sha256:" + "a" * 64,
    "artifact_digest": "sha256:" + "b" * 64,
    "status": "ready",
    "sequence": 17,
    "iat": 1_800_000_000,
}


@pytest.fixture
def key(tmp_path: Path) -> OKPKey:
    return ensure_key(tmp_path, "serving")


@pytest.fixture
def signer(key: OKPKey) -> PinSigner:
    return PinSigner(key)


def code(pin: str, keys: pins.Keys, **wanted: Any) -> str:
    with pytest.raises(HallmarkError) as caught:
        pins.verify(pin, keys, **wanted)
    return caught.value.code


def encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_pin_verifies_with_the_keys_and_with_their_file(signer: PinSigner, tmp_path: Path) -> None:
    pin = signer.sign(CLAIMS)
    assert pins.verify(pin, signer.jwks).model_dump() == CLAIMS | {"epoch": 0}
    assert pins.verify(pin, tmp_path / "serving.jwks.json", model="fraud", target="production").version == 3


def test_another_library_reads_it_as_a_jws(signer: PinSigner, key: OKPKey) -> None:
    read = jws.deserialize_compact(signer.sign(CLAIMS), key, algorithms=["EdDSA"])
    assert json.loads(read.payload) == CLAIMS
    assert read.headers() == {"alg": "EdDSA", "kid": key.kid, "typ": PIN_TYPE}


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_no_claim_can_be_changed(signer: PinSigner, name: str) -> None:
    header, payload, signature = signer.sign(CLAIMS).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims[name] = claims[name] + 1 if isinstance(claims[name], int) else claims[name] + "x"
    assert code(f"{header}.{encode(claims)}.{signature}", signer.jwks) == "pin-forged"


def test_no_character_can_be_changed(signer: PinSigner) -> None:
    pin = signer.sign(CLAIMS)
    for at, character in enumerate(pin):
        other = "A" if character != "A" else "B"
        assert code(pin[:at] + other + pin[at + 1 :], signer.jwks).startswith("pin-")


def test_a_foreign_key_type_or_algorithm_is_refused(signer: PinSigner, key: OKPKey, tmp_path: Path) -> None:
    pin = signer.sign(CLAIMS)
    stranger = PinSigner(ensure_key(tmp_path / "other", "serving"))
    assert code(pin, stranger.jwks) == "pin-unknown-key"
    assert code(pin, {"keys": [{**stranger.jwks["keys"][0], "kid": key.kid}]}) == "pin-forged"  # type: ignore[index]
    assert code(pin, tmp_path / "absent.json") == "pin-unknown-key"
    header = {"alg": "EdDSA", "kid": key.kid, "typ": PIN_TYPE}
    for changed in (header | {"typ": "JWT"}, header | {"alg": "none"}, header | {"crit": ["b64"]}):
        signed = f"{encode(changed)}.{pin.split('.')[1]}.{pin.split('.')[2]}"
        assert code(signed, signer.jwks) == "pin-malformed"
    decision = jws.serialize_compact(header | {"typ": "other"}, json.dumps(CLAIMS), key, algorithms=["EdDSA"])
    assert code(decision, signer.jwks) == "pin-malformed"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "ä.b.c", "e30.e30.e30", "W10.e30.e30"])
def test_what_is_no_pin_is_refused(signer: PinSigner, text: str) -> None:
    assert code(text, signer.jwks) == "pin-malformed"


def test_a_pin_for_something_else_is_refused(signer: PinSigner) -> None:
    pin = signer.sign(CLAIMS)
    for wanted in ({"workspace": "other"}, {"model": "Fraud2"}, {"target": "Staging"}, {"target": "@champion"}):
        assert code(pin, signer.jwks, **wanted) == "pin-mismatch"
    alias = signer.sign(CLAIMS | {"target": "@champion"})
    assert code(alias, signer.jwks, target="@Champion") == "pin-mismatch"


def test_an_old_pin_is_refused_where_age_matters(signer: PinSigner) -> None:
    now = int(time.time())
    for issued, good in ((now, True), (now - 3_000, True), (now - 4_000, False), (now + 4_000, False)):
        pin = signer.sign(CLAIMS | {"iat": issued})
        if good:
            assert pins.verify(pin, signer.jwks, max_age=timedelta(hours=1)).iat == issued
        else:
            assert code(pin, signer.jwks, max_age=timedelta(hours=1)) == "pin-expired"
