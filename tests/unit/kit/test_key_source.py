"""Key sets: read again for an unknown key, seldom enough that garbage cannot hurt, kept while the source is away."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OKPKey
from tests.support.waiting import until

from kit import auth
from kit.auth import KeySource, Verifier
from kit.errors import Transient
from kit.keys import make_token, public_jwks
from kit.problems import Problem


def new_key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", auto_kid=True)


def publish(path: Path, *keys: OKPKey) -> None:
    path.write_text(json.dumps({"keys": [key for one in keys for key in public_jwks(one)["keys"]]}))  # type: ignore[attr-defined]


class Counted(KeySource):
    """Counts its reads; the test may hold or fail them."""

    reads = 0
    failure: Exception | None = None
    gate: asyncio.Event | None = None

    async def _read(self) -> Any:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super()._read()


@pytest.fixture
def source(tmp_path: Path) -> Counted:
    return Counted(str(tmp_path / "keys.json"))


def verifier(source: KeySource) -> Verifier:
    return Verifier(source, issuer="hallmark", audience="hallmark")


async def test_a_rotated_key_is_found_without_a_restart(
    source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = new_key(), new_key()
    publish(tmp_path / "keys.json", old)
    check = verifier(source)
    await check.principal(f"Bearer {make_token(old, 'ana', [])}")
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", -1.0)
    publish(tmp_path / "keys.json", old, new)
    assert (await check.principal(f"Bearer {make_token(new, 'ben', [])}")).subject == "ben"
    assert (await check.principal(f"Bearer {make_token(old, 'ana', [])}")).subject == "ana"
    publish(tmp_path / "keys.json", new)  # the old one is withdrawn; the next unknown id notices
    with pytest.raises(Problem):
        await check.principal(f"Bearer {make_token(new_key(), 'eve', [])}")
    with pytest.raises(Problem):
        await check.principal(f"Bearer {make_token(old, 'ana', [])}")


async def test_unknown_ids_do_not_hammer_the_source(source: Counted, tmp_path: Path) -> None:
    key = new_key()
    publish(tmp_path / "keys.json", key)
    check = verifier(source)
    await check.principal(f"Bearer {make_token(key, 'ana', [])}")
    for _ in range(50):
        with pytest.raises(Problem):
            await check.principal(f"Bearer {make_token(new_key(), 'eve', [])}")
    assert source.reads == 1


async def test_a_failing_source_is_not_hammered_either(
    source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    publish(tmp_path / "keys.json", key)
    await source.keys()
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.2)
    await asyncio.sleep(0.25)  # so that it may be read once more
    source.failure = OSError("away")
    for _ in range(20):
        await source.keys("unknown")
    assert source.reads == 2


async def test_known_keys_serve_while_the_source_is_away_or_slow(
    source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's token must not make everybody wait for a slow issuer."""
    key = new_key()
    publish(tmp_path / "keys.json", key)
    check = verifier(source)
    await check.principal(f"Bearer {make_token(key, 'ana', [])}")
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", -1.0)
    source.gate = asyncio.Event()
    stranger = asyncio.create_task(source.keys("unknown"))
    await until(lambda: source.reads >= 2)
    principal = await asyncio.wait_for(check.principal(f"Bearer {make_token(key, 'ana', [])}"), 1)
    assert principal.subject == "ana"
    source.failure = OSError("away")
    source.gate.set()
    await stranger
    assert (await check.principal(f"Bearer {make_token(key, 'ana', [])}")).subject == "ana"


@pytest.mark.parametrize("text", [None, "", "not json", "[]", "{}", '{"keys": 5}', '{"keys": [{"kty": "?"}]}', "null"])
async def test_no_keys_yet_is_the_worlds_fault(source: Counted, tmp_path: Path, text: str | None) -> None:
    """Not 401: the caller did nothing wrong, and the next try may find the file."""
    if text is not None:
        (tmp_path / "keys.json").write_text(text)
    with pytest.raises(Transient, match=r"keys\.json"):
        await verifier(source).principal(f"Bearer {make_token(new_key(), 'ana', [])}")
    key = new_key()
    publish(tmp_path / "keys.json", key)
    assert (await verifier(source).principal(f"Bearer {make_token(key, 'ana', [])}")).subject == "ana"
