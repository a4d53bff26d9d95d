"""The signer in a process of its own: whoever owns the ingester can add to the log, but not rewrite it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from tests.support.foreign import scales_check
from tests.support.growing import Growing
from tests.support.signing import ORIGIN, SignerProcess
from tests.support.waiting import until_now

from audit.merkle import EMPTY_ROOT
from audit.note import Checkpoint, open_note
from audit.tlog.archive import Contradiction
from audit.tlog.signer import State
from audit.tlog.signing import Behind, Overtaken, RemoteSigner, SignerUnavailable, sign_extension
from embedded.ports import free_port
from kit.keys import ensure_key, ensure_mldsa44

LOG = Growing(ORIGIN)
FORGED = Growing(ORIGIN, fork=8)
DIE = "os.kill(os.getpid(), signal.SIGKILL)"
BEFORE_SAVING = f"import os, signal, audit.tlog.signer as s\ns.replace_file = lambda *a: {DIE}"
BEFORE_SIGNING = f"""
import os, signal, audit.tlog.signer as s
save = s.replace_file
s.replace_file = lambda *a: (save(*a), {DIE})
"""
BEFORE_ANSWERING = f"import os, signal, audit.tlog.signer as s, audit.note as n\nn.MldsaSigner.line = lambda *a: {DIE}"
IN_THE_MIDDLE = f"import os, signal, kit.ring as r\nr.os.fsync = lambda *a: {DIE}"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SignerProcess]:
    process = SignerProcess(tmp_path)
    State(process.state, ORIGIN).create()
    yield process
    process.stop()


@asynccontextmanager
async def client(process: SignerProcess, token: str | None = None) -> AsyncIterator[RemoteSigner]:
    signer = RemoteSigner(ORIGIN, process.address, token or process.token, seconds=20)
    try:
        yield signer
    finally:
        await signer.close()


def saved(process: SignerProcess) -> int:
    return int(json.loads(process.state.read_text())["size"])


async def grow(signer: RemoteSigner, old: int, size: int, log: Growing = LOG) -> str:
    return await signer.sign(log.checkpoint(size), old, log.proof(old, size))


async def test_it_signs_with_both_keys_what_extends_the_log(process: SignerProcess) -> None:
    process.start()
    async with client(process) as signer:
        with pytest.raises(SignerUnavailable):
            assert signer.vkeys
        old = 0
        for size in (0, 1, 1, 8, 100):
            note = f"{LOG.checkpoint(size).text()}\n{await grow(signer, old, size)}"
            for vkey in signer.vkeys:
                assert open_note(note, vkey) == LOG.checkpoint(size)
                assert scales_check(note, vkey)[1] == size
            old = size
        assert len(signer.vkeys) == 2
    assert saved(process) == 100


async def test_it_refuses_every_other_history_and_remembers_across_restarts(process: SignerProcess) -> None:
    process.start()
    async with client(process) as signer:
        await grow(signer, 0, 20)
        for restart in (False, True):
            if restart:
                assert process.kill(signal.SIGTERM) == -signal.SIGTERM  # uvicorn has ended in order, and says why
                process.start()
            with pytest.raises(Overtaken) as overtaken:
                await grow(signer, 10, 19)
            assert overtaken.value.size == 20
            with pytest.raises(Contradiction, match="another root"):
                await grow(signer, 20, 20, FORGED)
            with pytest.raises(Contradiction, match="proof"):
                await grow(signer, 20, 30, FORGED)
            with pytest.raises(Contradiction, match="proof"):
                await signer.sign(LOG.checkpoint(30), 20, [])
            with pytest.raises(Behind) as behind:
                await grow(signer, 0, 30, FORGED)
            assert behind.value.size == 20
            assert saved(process) == 20
        assert await grow(signer, 20, 30)


async def test_the_proof_is_made_anew_from_where_the_signer_stands(process: SignerProcess) -> None:
    process.start()

    async def proof_for(old: int) -> list[bytes]:
        return LOG.proof(old, 50)

    async with client(process) as signer:
        await grow(signer, 0, 20)
        assert await sign_extension(signer, LOG.checkpoint(50), 3, proof_for)
    assert saved(process) == 50


@pytest.mark.parametrize(
    ("patch", "kept"),
    [(BEFORE_SAVING, 20), (IN_THE_MIDDLE, 20), (BEFORE_SIGNING, 30), (BEFORE_ANSWERING, 30)],
    ids=["before saving", "while saving", "before signing", "before answering"],
)
async def test_a_killed_signer_never_signs_two_histories(process: SignerProcess, patch: str, kept: int) -> None:
    process.start()
    async with client(process) as signer:
        await grow(signer, 0, 20)
        process.kill()
        process.start(patch)
        with pytest.raises(SignerUnavailable):
            await grow(signer, 20, 30)
        assert process.ended() == -signal.SIGKILL
        assert saved(process) == kept
        process.start()
        if kept == 30:
            with pytest.raises(Contradiction):
                await grow(signer, 30, 30, FORGED)
        assert await grow(signer, kept, 30)


async def test_two_processes_on_one_state_take_turns(process: SignerProcess, tmp_path: Path) -> None:
    other = SignerProcess(tmp_path, name="other")
    process.start()
    other.start()
    signed: dict[int, set[bytes]] = {}

    async def race(to: SignerProcess, log: Growing) -> None:
        """Adds entries of its own history as fast as it can."""
        old = 0
        async with client(to) as signer:
            while old < 60:
                checkpoint = log.checkpoint(max(old + 1, 9))
                try:
                    await signer.sign(checkpoint, old, log.proof(old, checkpoint.size))
                except Behind as behind:
                    old = behind.size
                    continue
                except Overtaken as overtaken:
                    old = overtaken.size
                    continue
                except Contradiction:
                    return
                signed.setdefault(checkpoint.size, set()).add(checkpoint.root)
                old = checkpoint.size

    try:
        await asyncio.gather(race(process, LOG), race(other, LOG), race(process, FORGED), race(other, FORGED))
    finally:
        other.stop()
    assert max(signed) == 60
    assert all(len(roots) == 1 for roots in signed.values())
    winner = LOG if signed[60] == {LOG.checkpoint(60).root} else FORGED
    assert {size: {winner.checkpoint(size).root} for size in signed} == signed


async def test_without_its_state_or_with_another_it_does_not_start(process: SignerProcess) -> None:
    whole = process.state.read_text()
    for text in (None, "", "{}", whole[:-5], whole.replace(ORIGIN, "elsewhere.example"), whole.replace("0,", "-1,")):
        process.state.unlink(missing_ok=True)
        if text is not None:
            process.state.write_text(text)
        ended = process.run()
        assert ended.returncode == 2
        assert "cannot sign: cannot read the signer's state" in ended.output


async def test_a_state_lost_while_it_runs_stops_it_from_signing(process: SignerProcess) -> None:
    process.start()
    async with client(process) as signer:
        await grow(signer, 0, 20)
        process.state.unlink()
        with pytest.raises(SignerUnavailable, match="HTTP 500"):
            await grow(signer, 20, 30)
    assert not process.state.exists()


async def test_over_tcp_a_token_is_needed(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    without = SignerProcess(tmp_path, address).run()
    assert without.returncode == 2
    assert "HALLMARK_CHECKPOINT_SIGNER_TOKEN is needed" in without.output
    process = SignerProcess(tmp_path, address, token="a secret of the operator")
    process.environment["HALLMARK_CHECKPOINT_SIGNER_TOKEN"] = str(tmp_path / "missing")
    assert process.run("--init").returncode == 0
    assert "cannot read the token" in process.run().output
    token = "a-secret-of-the-operator"
    process = SignerProcess(tmp_path, address, token=token)
    process.start()
    try:
        async with client(process) as signer:
            assert await grow(signer, 0, 5)
        async with client(process, "another-secret-of-somebody") as stranger:
            with pytest.raises(SignerUnavailable, match="401"):
                await grow(stranger, 5, 6)
        async with httpx2.AsyncClient(base_url=address, trust_env=False) as http:
            for path, method in (("/vkeys", "GET"), ("/add-checkpoint", "POST")):
                assert (await http.request(method, path)).status_code == 401
    finally:
        process.stop()
    assert saved(process) == 5


async def test_bad_requests_change_nothing(process: SignerProcess) -> None:
    process.start()
    text = LOG.checkpoint(5).text()
    strange = Checkpoint("elsewhere.example", 5, LOG.checkpoint(5).root).text()
    bodies = {
        b"": 400,
        b"old 0\n\n": 400,
        f"old 0\n\n{text[:-1]}".encode(): 400,
        f"old 0\n\n{strange}".encode(): 404,
        f"old 0\n\n{text}extension\n".encode(): 404,
        f"old 0\nAAAA\n\n{text}".encode(): 400,
        b"old 0\n\n" + b"x" * 2_000_000: 413,
    }
    transport = httpx2.AsyncHTTPTransport(uds=process.address.removeprefix("unix:"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://signer") as http:
        for body, status in bodies.items():
            answer = await http.post("/add-checkpoint", content=body)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert json.loads(process.state.read_text())["size"] == 0


async def test_the_socket_is_for_the_owner_and_the_group_and_a_dead_one_is_replaced(process: SignerProcess) -> None:
    process.start()
    path = process.address.removeprefix("unix:")
    assert os.stat(path).st_mode & 0o777 == 0o660
    assert os.stat(process.state).st_mode & 0o777 == 0o600
    second = SignerProcess(process.directory, process.address, name="second").run()
    assert second.returncode == 2
    assert "in use" in second.output
    process.kill()
    assert os.access(path, os.F_OK)
    process.start()
    async with client(process) as signer:
        assert await grow(signer, 0, 1)


async def test_an_answer_that_does_not_verify_is_not_believed(process: SignerProcess, tmp_path: Path) -> None:
    """Somebody else has taken the socket: the keys are learnt once, and a new key only together with its vkeys."""
    process.start("import audit.note as n\nn.Signer.line = lambda self, text: 'nonsense\\n'")
    async with client(process) as signer:
        with pytest.raises(SignerUnavailable, match="not signed by its keys"):
            await grow(signer, 0, 5)


async def test_a_new_key_is_learnt(process: SignerProcess) -> None:
    process.start()
    async with client(process) as signer:
        await grow(signer, 0, 5)
        before = signer.vkeys
        process.kill()
        for path in (process.directory / "keys").iterdir():
            path.unlink()
        ensure_key(process.directory / "keys", "checkpoint")
        ensure_mldsa44(process.directory / "keys", "checkpoint")
        process.start()
        assert await grow(signer, 5, 6)
        assert not set(before) & set(signer.vkeys)


async def test_a_signer_that_is_away_is_said_so(tmp_path: Path) -> None:
    signer = RemoteSigner(ORIGIN, f"unix:{tmp_path}/nobody.sock")
    with pytest.raises(SignerUnavailable, match="away"):
        await signer.sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT), 0, [])
    await signer.close()


def test_as_an_operator_starts_it(tmp_path: Path) -> None:
    process = SignerProcess(tmp_path)

    def command(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "audit", "sign", *arguments],
            env=process.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    init = command("--init")
    assert (init.communicate(timeout=60)[0], init.returncode) == ("a new state\n", 0)
    assert saved(process) == 0
    running = command()
    until_now(lambda: Path(process.address.removeprefix("unix:")).exists() or running.poll() is not None, 60)
    running.terminate()
    assert (running.wait(30), process.run("--init").output) == (-signal.SIGTERM, "the state is there already\n")


def test_the_settings_of_the_service_are_not_needed(process: SignerProcess) -> None:
    """The process must know neither the database nor Kafka; what it lacks is named."""
    assert not {"HALLMARK_DATABASE_URL", "HALLMARK_KAFKA_BOOTSTRAP"} & set(process.environment)
    del process.environment["HALLMARK_CHECKPOINT_SIGNER_STATE"]
    ended = process.run()
    assert ended.returncode == 2
    assert "HALLMARK_CHECKPOINT_SIGNER_STATE" in ended.output
    assert os.environ.get("HALLMARK_CHECKPOINT_SIGNER_STATE") is None
