"""Acts that come at the same moment, through the real use cases on a real database.

HALLMARK_RACES=1000 races approve and deny as often as the issue says; CI does fewer.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.approval.conftest import Direct, Registry, transition_id

from approval.app import assemble
from approval.clock import Clock
from approval.consumers import RegistryEvents
from approval.keyring import Keyring

from contracts.approval import Choice
from contracts.envelope import Envelope
from kit.auth import Access
from kit.db import Database
from kit.problems import Problem
from policy.people import Ballot

RACES = int(os.environ.get("HALLMARK_RACES", "200"))
SETTLE = 0.25
LANES = 8  # models, each with a stream of its own
APPROVE, REJECT = Ballot(Choice.APPROVE), Ballot(Choice.REJECT, "no")


@pytest_asyncio.fixture
async def racing(direct: Direct) -> AsyncIterator[Direct]:
    """With a connection for everybody who acts at once: what waits for one has not arrived."""
    db = Database(direct.settings.database_url.get_secret_value(), name="approval", pool=4 * LANES)
    settings, clock = direct.settings.model_copy(update={"settle_seconds": SETTLE}), Clock()
    parts = assemble(settings, db, Access.load(settings.access_file), Keyring(settings.decision_key), clock)
    apply = RegistryEvents(parts.commands)

    async def send(envelope: Envelope) -> None:
        async with db.transaction() as tx:
            await apply(tx, envelope)

    found = Direct(settings, db, clock, parts, Registry(send, clock=clock))
    await found.parts.revisions.bootstrap()
    yield found
    await db.close()


async def asked(direct: Direct, model: str = "m", **given: Any) -> str:
    return transition_id(await direct.registry.request(model, **given))


async def together(*acts: Awaitable[Any]) -> list[Any]:
    """What each came to; a refusal is given, anything else that is raised fails the test."""
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Problem):
            raise outcome
    return [outcome.code if isinstance(outcome, Problem) else outcome for outcome in outcomes]


@pytest.mark.timeout(600)
async def test_approve_and_deny_at_once_are_never_an_approval(racing: Direct) -> None:
    approvals: list[str] = []

    async def lane(model: str) -> None:
        await racing.registry.register(model, accuracy=0.95)
        for turn in range(RACES // LANES):
            request = await asked(racing, model)
            ben, bo = await racing.person("ben", "reviewers"), await racing.person("bo", "reviewers")
            votes = [racing.parts.people.vote(request, ben, APPROVE), racing.parts.people.vote(request, bo, REJECT)]
            outcomes = await together(*(votes if turn % 2 else reversed(votes)))
            found = await racing.request(request)
            if found.status != "rejected":
                approvals.append(f"{request} is {found.status}: {outcomes}")
            assert "request-closed" not in outcomes or found.decision is not None

    await asyncio.gather(*(lane(f"m{n}") for n in range(LANES)))
    assert approvals == []
