"""Keys of the running service: rotated and revoked by the command, published over HTTP, believed by the registry."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from tests.integration.approval.conftest import Harness
from tests.support.decisions import unb64
from tests.support.waiting import until

from approval.keyring import COMMAND
from approval.settings import ApprovalSettings
from contracts.approval import Verdict
from contracts.lifecycle import Stage
from kit import auth
from kit.auth import KeySource
from kit.errors import Permanent
from registry.decisions import DecisionReader

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)


@asynccontextmanager
async def reader_of(harness: Harness, max_age: float = 60) -> AsyncIterator[DecisionReader]:
    """What the registry believes, with the keys from the service's own address."""
    server = uvicorn.Server(uvicorn.Config(harness.app, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield DecisionReader(KeySource(f"http://127.0.0.1:{port}/.well-known/jwks.json", max_age=max_age))
    finally:
        server.should_exit = True
        await serving


async def keys(harness: Harness, *arguments: str) -> list[dict[str, Any]]:
    """`python -m approval keys ...`, as an operator types it beside the service."""
    given = harness.settings
    env = {
        "HALLMARK_DATABASE_URL": given.database_url.get_secret_value(),
        "HALLMARK_KAFKA_BOOTSTRAP": given.kafka_bootstrap,
        "HALLMARK_AUTH_JWKS": given.auth_jwks,
        "HALLMARK_ACCESS_FILE": str(given.access_file),
        "HALLMARK_DECISION_KEY": str(given.decision_key),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "approval", "keys", *arguments, "--json"),
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out)["keys"]
    return found


def rotate(settings: ApprovalSettings) -> int:
    """The same command beside the service, without a process of its own: that takes 2 s to start."""
    parser = argparse.ArgumentParser()
    COMMAND.arguments(parser)
    return asyncio.run(COMMAND.work(settings, parser.parse_args(["rotate"])))


async def decided(harness: Harness, model: str) -> str:
    """The signature of a decision that needs nobody."""
    await harness.registry.register(model, accuracy=0.95)
    asked = await harness.registry.request(model, from_=Stage.DEVELOPMENT, to=Stage.STAGING)
    return str((await harness.decided(asked))["jws"])


def kid_of(token: str) -> str:
    return str(json.loads(unb64(token.partition(".")[0]))["kid"])


async def test_keys_rotate_with_overlap_and_are_revoked_without_a_restart(approval: Harness) -> None:
    async with reader_of(approval, max_age=0.2) as reader:
        first = await decided(approval, "keys-1")
        assert (await reader.read(first)).verdict is Verdict.APPROVED
        rotated = await keys(approval, "rotate")
        assert [key["state"] for key in rotated] == ["retired", "active"]
        second = await decided(approval, "keys-2")
        assert [kid_of(first), kid_of(second)] == [key["kid"] for key in rotated]
        for token in (first, second):
            await reader.read(token)
        await keys(approval, "revoke", kid_of(second), "--reason", "compromised")
        third = await decided(approval, "keys-3")
        await reader.read(third)  # an unknown key, so the set is read again
        with pytest.raises(Permanent) as caught:
            await reader.read(second)
        assert caught.value.code == "decision-revoked-key"
        await reader.read(first)
        await keys(approval, "revoke", kid_of(first))
        with pytest.raises(Permanent, match="revoked"):
            async with asyncio.timeout(20):
                while True:
                    await reader.read(first)
    served = (await approval.ana.get("/.well-known/jwks.json")).json()["keys"]
    assert ["revoked" in key for key in served] == [True, True, False]
    assert not any("d" in key for key in served)


async def test_no_decision_is_lost_while_keys_rotate(approval: Harness) -> None:
    """Decisions are made without a pause; each of them is believed, whichever key it was signed with."""
    done = asyncio.Event()
    tokens: list[str] = []

    async def decide(n: int) -> None:
        while not done.is_set():
            tokens.append(await decided(approval, f"rotating-{n}-{len(tokens)}"))

    async with reader_of(approval) as reader:
        deciding = [asyncio.create_task(decide(n)) for n in range(3)]
        for count in range(1, 5):
            assert await asyncio.to_thread(rotate, approval.settings) == 0
            wanted = len(tokens) + 3 * count
            await until(lambda wanted=wanted: len(tokens) >= wanted)  # type: ignore[misc]
        done.set()
        await asyncio.gather(*deciding)
        for token in tokens:
            assert (await reader.read(token)).verdict is Verdict.APPROVED
    assert len({kid_of(token) for token in tokens}) >= 4
