"""Key sets: read again for an unknown key and when they are old, seldom enough that garbage cannot hurt, kept while the
source is away."""

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


def aged(tmp_path: Path, max_age: float = 0.2) -> Counted:
    return Counted(str(tmp_path / "keys.json"), max_age=max_age)


async def grow_old(source: Counted) -> None:
    await asyncio.sleep(source._max_age + 0.05)


def revoke(path: Path, *keys: OKPKey) -> None:
    document = json.loads(path.read_text())
    for key in document["keys"]:
        if key["kid"] in {revoked.kid for revoked in keys}:
            key["revoked"] = {"revoked_at": 1, "reason": "compromised"}
    path.write_text(json.dumps(document))


async def test_known_keys_are_not_read_again_before_their_time(source: Counted, tmp_path: Path) -> None:
    key = new_key()
    publish(tmp_path / "keys.json", key)
    for _ in range(100):
        assert await source.find(str(key.kid)) is not None
        await source.keys(key.kid)
    assert source.reads == 1


async def test_old_keys_are_read_again_and_a_withdrawn_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    source, old, new = aged(tmp_path), new_key(), new_key()
    publish(tmp_path / "keys.json", old)
    check = verifier(source)
    token = f"Bearer {make_token(old, 'ana', [])}"
    await check.principal(token)
    publish(tmp_path / "keys.json", new)
    await check.principal(token)
    await grow_old(source)
    with pytest.raises(Problem):
        await check.principal(token)
    assert await source.find(str(old.kid)) is None


async def test_a_token_of_a_revoked_key_is_refused_and_find_tells_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    source, key, other = aged(tmp_path), new_key(), new_key()
    publish(tmp_path / "keys.json", key, other)
    check = verifier(source)
    await check.principal(f"Bearer {make_token(key, 'ana', [])}")
    revoke(tmp_path / "keys.json", key)
    await grow_old(source)
    with pytest.raises(Problem) as caught:
        await check.principal(f"Bearer {make_token(key, 'ana', [])}")
    assert caught.value.code == "token-invalid"
    assert (await check.principal(f"Bearer {make_token(other, 'ben', [])}")).subject == "ben"
    found: Any = await source.find(str(key.kid))
    assert found.get("revoked") == {"revoked_at": 1, "reason": "compromised"}
    revoke(tmp_path / "keys.json", other)
    await grow_old(source)
    with pytest.raises(Problem):
        await check.principal(f"Bearer {make_token(other, 'ben', [])}")


async def test_a_source_that_is_away_leaves_old_keys_in_force_and_is_not_hammered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 30.0)
    source, key = aged(tmp_path), new_key()
    publish(tmp_path / "keys.json", key)
    assert await source.find(str(key.kid)) is not None
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    source.failure = OSError("away")
    await grow_old(source)
    assert await source.find(str(key.kid)) is not None
    assert source.reads == 2
    assert "keys not refreshed" in capsys.readouterr().out
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 30.0)
    for _ in range(50):
        assert await source.find(str(key.kid)) is not None
        await source.keys(key.kid)
    assert source.reads == 2
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    source.failure = None
    revoke(tmp_path / "keys.json", key)
    found = await source.find(str(key.kid))
    assert found is not None
    assert found.get("revoked"), "as soon as it is back"


async def test_while_old_keys_are_read_again_tokens_do_not_wait_and_decisions_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    source, key = aged(tmp_path), new_key()
    publish(tmp_path / "keys.json", key)
    await source.keys()
    await grow_old(source)
    revoke(tmp_path / "keys.json", key)
    source.gate = asyncio.Event()
    decision = asyncio.create_task(source.find(str(key.kid)))
    await until(lambda: source.reads >= 2)
    assert (await asyncio.wait_for(source.keys(key.kid), 1)).keys
    another = asyncio.create_task(source.find(str(key.kid)))
    assert not (await asyncio.wait({decision, another}, timeout=0.1))[0]
    source.gate.set()
    for found in await asyncio.gather(decision, another):
        assert found is not None
        assert found.get("revoked")
    assert source.reads == 2


async def test_a_source_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(auth, "READ_SECONDS", 0.2)
    source, key = aged(tmp_path), new_key()
    source.gate = asyncio.Event()
    with pytest.raises(Transient):
        await source.find("any")
    source.gate.set()
    publish(tmp_path / "keys.json", key)
    assert await source.find(str(key.kid)) is not None
    source.gate = asyncio.Event()
    await grow_old(source)
    assert await source.find(str(key.kid)) is not None


async def test_nobody_is_unknown_before_a_read_that_began_after_the_question(
    source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a decision that is signed with a new key would be parked for ever."""
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 1.0)
    old, new = new_key(), new_key()
    publish(tmp_path / "keys.json", old)
    await source.keys()
    question = asyncio.create_task(source.find(str(new.kid)))
    await asyncio.sleep(0.05)
    publish(tmp_path / "keys.json", old, new)
    assert await question is not None
    assert source.reads == 2


async def test_many_unknown_ids_share_a_read_and_do_not_keep_the_known_waiting(
    source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.5)
    key = new_key()
    publish(tmp_path / "keys.json", key)
    await source.keys()
    strangers = [asyncio.create_task(source.find(f"stranger-{n}")) for n in range(50)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(source.find(str(key.kid)), 0.2) is not None
    assert await asyncio.gather(*strangers) == [None] * 50
    assert source.reads == 2
    source.failure = OSError("away")
    with pytest.raises(Transient):
        await source.find("stranger")
