"""Making keys and tokens: the private half stays private, and nothing that exists is overwritten."""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kit.auth import KeySource, Verifier
from kit.keys import ensure_key, ensure_mldsa44, load_key, load_mldsa44, seconds
from kit.ring import read_ring, write_ring


def test_private_and_public_halves(tmp_path: Path) -> None:
    key = ensure_key(tmp_path / "new" / "dir", "auth")
    private, public = tmp_path / "new/dir/auth.jwk", tmp_path / "new/dir/auth.jwks.json"
    assert private.stat().st_mode & 0o777 == 0o600
    assert "d" in json.loads(private.read_text())
    (published,) = json.loads(public.read_text())["keys"]
    assert "d" not in published
    assert published["kid"] == key.kid
    assert {path.name for path in private.parent.iterdir()} == {"auth.jwk", "auth.jwks.json"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first = ensure_key(tmp_path, "auth")
    assert ensure_key(tmp_path, "auth").as_dict() == first.as_dict()
    (tmp_path / "auth.jwks.json").unlink()
    ensure_key(tmp_path, "auth")
    assert json.loads((tmp_path / "auth.jwks.json").read_text())["keys"][0]["kid"] == first.kid


def test_two_at_a_time_agree(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "kit.keys", str(tmp_path), "auth", "decision"]
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(lambda _: subprocess.run(program, capture_output=True, check=False), range(3)):
            assert done.returncode == 0, done.stderr
    key = load_key(tmp_path / "auth.jwk")
    assert json.loads((tmp_path / "auth.jwks.json").read_text())["keys"][0]["kid"] == key.kid
    assert len(list(tmp_path.iterdir())) == 4


def test_an_ml_dsa_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "kit.keys", "mldsa44", str(tmp_path / "new"), "checkpoint"]
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(lambda _: subprocess.run(program, capture_output=True, check=False), range(3)):
            assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "new").iterdir()
    assert path == ensure_mldsa44(tmp_path / "new", "checkpoint")
    assert path.name == "checkpoint.mldsa44.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    ensure_mldsa44(tmp_path / "new", "checkpoint")
    assert path.read_bytes() == before
    key = load_mldsa44(path)
    key.public_key().verify(key.sign(b"text"), b"text")


@pytest.mark.parametrize("text", [None, "", "not PEM", "an Ed25519 key"])
def test_a_bad_ml_dsa_key_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "checkpoint.mldsa44.pem"
    if text is not None:
        other = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(other if "Ed25519" in text else text.encode())
    with pytest.raises(ValueError, match=r"checkpoint\.mldsa44\.pem"):
        load_mldsa44(path)


def test_the_token_command(tmp_path: Path) -> None:
    key = ensure_key(tmp_path, "auth")
    assert key
    command = [sys.executable, "-m", "kit.keys", "token", "--key", str(tmp_path / "auth.jwk"), "--subject", "ana"]
    made = subprocess.run(
        [*command, "--group", "a", "--group", "b", "--ttl", "5m"], capture_output=True, text=True, check=True
    )
    check = Verifier(KeySource(str(tmp_path / "auth.jwks.json")), issuer="hallmark", audience="hallmark")
    principal = asyncio.run(check.principal(f"Bearer {made.stdout.strip()}"))
    assert principal.subject == "ana"
    assert principal.groups == {"a", "b"}


def test_a_set_of_keys_is_left_alone_and_its_public_file_is_made_good(tmp_path: Path) -> None:
    """`ensure_key` runs at every start, and a rotation may have been cut short between the two files."""
    ensure_key(tmp_path, "decision")
    path, public = tmp_path / "decision.jwk", tmp_path / "decision.jwks.json"
    stale, now = public.read_text(), time.time()
    ring = read_ring(path, now).rotated(now, now)
    write_ring(path, ring, now)
    before = path.read_bytes()
    public.write_text(stale)
    assert ensure_key(tmp_path, "decision").kid == load_key(path).kid == ring.keys[1].kid
    assert path.read_bytes() == before
    assert json.loads(public.read_text()) == ring.published()


def test_what_was_added_beside_one_key_stays(tmp_path: Path) -> None:
    ensure_key(tmp_path, "auth")
    public = tmp_path / "auth.jwks.json"
    added = {"keys": [*json.loads(public.read_text())["keys"], {"kty": "RSA", "kid": "our-idp"}]}
    public.write_text(json.dumps(added))
    ensure_key(tmp_path, "auth")
    assert json.loads(public.read_text()) == added


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "not json", '{"kty": "oct", "k": "AAAA"}'])
def test_a_bad_key_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "auth.jwk"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"auth\.jwk"):
        load_key(path)


@pytest.mark.parametrize(("text", "expected"), [("5s", 5), ("30m", 1800), ("12h", 43200), ("7d", 604800)])
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "h", "-5m", "1.5h", "5w", " 5m"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)
