"""The keys of the service: taken up without a restart, and changed by `python -m approval keys`."""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import KeySet
from pydantic import SecretStr
from tests.support.decisions import decision, revocation, unb64

from approval import keyring
from approval.decision import verify
from approval.keyring import COMMAND, Keyring, published
from approval.settings import ApprovalSettings
from contracts.approval import Decision, Revocation
from kit.keys import ensure_key
from kit.ring import Ring, public_path, read_ring, write_ring

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ensure_key(tmp_path, "decision")
    return tmp_path / "decision.jwk"


@pytest.fixture
def settings(path: Path) -> ApprovalSettings:
    return ApprovalSettings(
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        kafka_bootstrap="127.0.0.1:1",
        auth_jwks="none",
        access_file=path.parent / "access.yaml",
        decision_key=path,
    )


@pytest.fixture
def run(settings: ApprovalSettings, capsys: pytest.CaptureFixture[str]) -> Run:
    def keys(*arguments: str) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser(prog="keys")
        COMMAND.arguments(parser)
        status = asyncio.run(COMMAND.work(settings, parser.parse_args(arguments)))
        return status, *capsys.readouterr()

    return keys


def ring_of(path: Path) -> Ring:
    return read_ring(path, time.time())


def states(path: Path) -> list[str]:
    return [key.state(time.time()) for key in ring_of(path).keys]


def kid_of(token: str) -> str:
    return str(json.loads(unb64(token.split(".", maxsplit=1)[0]))["kid"])


def names(keys: Keyring) -> list[str]:
    return [key["kid"] for key in published(keys)["keys"]]


# -- the running service -----------------------------------------------------------------------------------------


def test_a_rotation_counts_at_the_next_signature_and_the_next_answer(path: Path, run: Run) -> None:
    keys = Keyring(path)
    before = keys.sign(decision())
    run("rotate")
    after = keys.sign(decision())
    assert [kid_of(before), kid_of(after)] == names(keys)
    known = KeySet.import_key_set(published(keys))  # type: ignore[arg-type]
    assert verify(before, known) == verify(after, known) == decision()
    assert not any("d" in key for key in published(keys)["keys"])


def test_a_revocation_counts_at_the_next_signature_and_the_next_answer(path: Path, run: Run) -> None:
    keys = Keyring(path)
    stolen = kid_of(keys.sign(decision()))
    run("revoke", stolen, "--reason", "compromised")
    assert published(keys)["keys"][0]["revoked"]["reason"] == "compromised"
    assert kid_of(keys.sign(revocation())) != stolen


def test_an_announced_key_signs_from_its_time_on(path: Path, run: Run) -> None:
    clock = time.time()
    keys = Keyring(path, lambda: clock)
    run("rotate", "--in", "10m")
    first, second = names(keys)
    assert kid_of(keys.sign(decision())) == first
    clock += 601
    assert kid_of(keys.sign(decision())) == second, "without another look at the file"


def test_both_kinds_are_signed(path: Path) -> None:
    keys = Keyring(path)
    known = KeySet.import_key_set(published(keys))  # type: ignore[arg-type]
    assert verify(keys.sign(decision()), known, Decision) == decision()
    assert verify(keys.sign(revocation()), known, Revocation) == revocation()


def test_the_file_is_read_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keyring(path)
    reads: list[float] = []

    def counted(path: Path, at: float) -> Ring:
        reads.append(at)
        return read_ring(path, at)

    monkeypatch.setattr(keyring, "read_ring", counted)
    for _ in range(100):
        keys.sign(decision())
        published(keys)
    assert reads == []
    os.utime(path)
    keys.key()
    keys.key()
    assert len(reads) == 1


@pytest.mark.parametrize("text", [None, "", "{", '{"keys": []}'])
def test_a_broken_file_changes_nothing_and_is_taken_up_when_it_is_good_again(
    path: Path, text: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, now = Keyring(path), time.time()
    kid, good = keys.key().kid, ring_of(path).rotated(now, now)
    path.unlink()
    if text is not None:
        path.write_text(text)
    for _ in range(3):
        assert keys.key().kid == kid
    assert capsys.readouterr().out.count("not read again") == 1
    monkeypatch.setattr(keyring, "AGAIN_SECONDS", 0.0)
    write_ring(path, good, now)
    assert keys.key().kid == good.signing(now).kid


def test_a_file_that_was_read_too_early_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the host that rotated may be ahead: the new key waits still, and the former has gone."""
    monkeypatch.setattr(keyring, "AGAIN_SECONDS", 0.0)
    clock = time.time()
    keys = Keyring(path, lambda: clock)
    first = keys.key().kid
    write_ring(path, ring_of(path).rotated(clock + 3, clock + 3), clock + 3)
    assert keys.key().kid == first
    clock += 3
    assert keys.key().kid != first


def test_the_service_does_not_start_without_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"decision\.jwk"):
        Keyring(tmp_path / "decision.jwk")


# -- the command -------------------------------------------------------------------------------------------------


def test_list_for_people_and_for_programs(path: Path, run: Run) -> None:
    kid = ring_of(path).keys[0].kid
    assert run("list") == (0, f"{kid}  active\n", "")
    run("rotate")
    run("revoke", kid)
    status, out, _ = run("list", "--json")
    old, new = json.loads(out)["keys"]
    assert (status, old["kid"], old["state"], old["reason"]) == (0, kid, "revoked", "unspecified")
    assert (new["state"], new["until"], new["revoked_at"]) == ("active", None, None)
    assert old["until"] == new["from"]
    _, out, _ = run("list")
    assert out.splitlines()[0].startswith(f"{kid}  revoked   until ")
    assert '"d"' not in out + json.dumps([old, new])


def test_rotate_keeps_the_former_published(path: Path, run: Run) -> None:
    status, out, _ = run("rotate", "--json")
    assert (status, [key["state"] for key in json.loads(out)["keys"]]) == (0, ["retired", "active"])
    assert states(path) == ["retired", "active"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(public_path(path).read_text()) == ring_of(path).published()


def test_revoke_all_for_a_stolen_file(path: Path, run: Run) -> None:
    run("rotate")
    run("rotate", "--in", "1h")
    status, _, _ = run("revoke", "--all", "--reason", "compromised")
    assert (status, states(path)) == (0, ["revoked", "revoked", "revoked", "active"])
    assert run("revoke", "--all")[0] == 0
    assert states(path).count("active") == 1


WRONG: dict[str, tuple[list[str], str]] = {
    "no such key": (["revoke", "nobody"], "no key is called 'nobody'; known are "),
    "nothing named": (["revoke"], "name the keys to revoke, or say --all"),
    "named, and all": (["revoke", "x", "--all"], "name the keys to revoke, or say --all"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_done_is_said_and_changes_nothing(path: Path, run: Run, what: str) -> None:
    before = path.read_bytes()
    arguments, text = WRONG[what]
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {text}")
    assert path.read_bytes() == before


def test_a_second_rotation_while_one_waits(run: Run) -> None:
    run("rotate", "--in", "5m")
    status, _, err = run("rotate")
    assert (status, "waits already" in err) == (1, True)


@pytest.mark.parametrize("arguments", [[], ["explode"], ["rotate", "--in", "soon"], ["revoke", "x", "--reason", "?"]])
def test_usage(run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage: keys" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [[], ["list"], ["rotate"], ["revoke"]])
def test_help_has_examples(run: Run, verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*verb, "--help")
    assert caught.value.code == 0
    assert "python -m approval keys rotate --in 10m" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["list", "rotate"])
def test_a_missing_file_is_named(path: Path, run: Run, verb: str) -> None:
    path.unlink()
    status, _, err = run(verb)
    assert (status, "decision.jwk" in err, "Traceback" in err) == (1, True, False)
    shutil.rmtree(path.parent)
    status, _, err = run(verb)
    assert (status, "Traceback" in err) == (1, False)


def test_a_file_that_may_not_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the service's own container, where the keys are mounted for reading only."""

    def read_only(path: Path, *_: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(keyring, "write_ring", read_only)
    status, _, err = run("rotate")
    assert (status, err.count("Read-only file system. Run it where")) == (1, 1)


def test_the_command_of_the_service(settings: ApprovalSettings, path: Path) -> None:
    env = {
        "HALLMARK_DATABASE_URL": settings.database_url.get_secret_value(),
        "HALLMARK_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "HALLMARK_AUTH_JWKS": settings.auth_jwks,
        "HALLMARK_ACCESS_FILE": str(settings.access_file),
        "HALLMARK_DECISION_KEY": str(path),
    }
    command = [sys.executable, "-m", "approval", "keys", "rotate", "--json"]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    assert [key["state"] for key in json.loads(done.stdout)["keys"]] == ["retired", "active"]
