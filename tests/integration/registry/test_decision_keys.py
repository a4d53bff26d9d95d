"""Decisions from the approval service's topic: which key signed them, what they are for, and how often they count."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc.jwk import OKPKey
from tests.support.decisions import BENT, new_key, revocation

from approval.decision import sign
from contracts.approval import RequestDecided
from contracts.envelope import Envelope, now
from contracts.keys import LEEWAY_SECONDS
from contracts.registry import CommandRejected, StageChanged
from contracts.topics import APPROVAL_EVENTS
from kit import auth
from kit.ring import Ring, RingKey

from .conftest import Harness
from .test_registry import decide, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")
VISIBLE = re.compile(r"[\x21-\x7e]{0,1000000}")


@pytest.fixture
def jwks(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the approval service publishes. Afterwards it is again what it was."""
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.05)
    path = scratch / "decision.jwks.json"
    before = path.read_text()
    yield path
    path.write_text(before)


def put(jwks: Path, ring: Ring) -> None:
    jwks.write_text(json.dumps(ring.published()))


async def refusal(harness: Harness, envelope: Envelope) -> str:
    def of_it(event: Envelope) -> bool:
        return event.type == CommandRejected.TYPE and event.payload(CommandRejected).command_id == envelope.id

    return (await harness.event(of_it)).payload(CommandRejected).code


async def asked(harness: Harness, model: str = "churn") -> dict[str, Any]:
    await harness.register(model)
    return await harness.request(model, 1, "Staging")


async def applied(harness: Harness, transition: dict[str, Any], key: OKPKey | None = None) -> None:
    """The true decision counts, whatever came before it."""
    await decide(harness, signed(harness, transition, key=key))
    closed = await harness.closed(transition["transition_id"])
    assert (closed["status"], closed["code"]) == ("applied", None)


async def send(harness: Harness, decided: RequestDecided, token: str) -> Envelope:
    """The event with any text for a signature, as whoever may write to the topic can send it."""
    envelope = Envelope.of(
        decided, source="hallmark/approval", subject=harness.stream("churn"), key=harness.stream("churn"), sequence=1
    )
    bent = {**json.loads(envelope.value), "jws": token}
    envelope = envelope.model_copy(update={"value": json.dumps(bent).encode()})
    await harness.send(APPROVAL_EVENTS.name, envelope)
    return envelope


async def test_every_bent_decision_is_refused_and_the_true_one_counts(registry: Harness, jwks: Path) -> None:
    transition = await asked(registry)
    good = signed(registry, transition)
    sent: dict[str, tuple[Envelope, str | None]] = {}
    for how, (bend, code) in BENT.items():
        token = bend(good.jws, registry.keys["decision"])
        if len(token) < 500_000:  # Kafka takes no longer record
            sent[how] = (await send(registry, good, token), code if VISIBLE.fullmatch(token) else None)
    for how, (envelope, expected) in sent.items():
        assert await refusal(registry, envelope) == (f"decision-{expected}" if expected else "bad-event"), how
    document = (await registry.ana.get(f"/v1/transitions/{transition['transition_id']}")).json()
    assert document["status"] == "open"
    await applied(registry, transition)


ELSEWHERE = "sha256:" + "f" * 64
FOR_ANOTHER: dict[str, dict[str, Any]] = {
    "model": {"model": "other"},
    "workspace": {"workspace": "elsewhere"},
    "version": {"version": 2},
    "digest": {"digest": ELSEWHERE},
    "artifact": {"artifact_digest": ELSEWHERE},
    "stage to leave": {"from_stage": "Production"},
    "stage to enter": {"to_stage": "Production"},
    "kind": {"kind": "rollback"},
    "requester": {"requested_by": "eve"},
}


@pytest.mark.parametrize("what", FOR_ANOTHER)
async def test_a_decision_for_another(registry: Harness, what: str) -> None:
    """Truly signed, but not for this transition."""
    transition = await asked(registry)
    await registry.register("other")
    envelope = await decide(registry, signed(registry, {**transition, **FOR_ANOTHER[what]}))
    assert await refusal(registry, envelope) == "decision-mismatch"
    await applied(registry, transition)


async def test_a_decision_moves_only_what_it_was_signed_for(registry: Harness, service: Harness) -> None:
    """The same model in two workspaces, and two models in one: what the event says in clear does not count."""
    there = replace(service, workspace=f"w{uuid4().hex[:8]}")
    here, other, elsewhere = await asked(registry), await asked(registry, "other"), await asked(there)
    mine = signed(registry, here)
    for clear in (signed(registry, other), signed(there, elsewhere)):
        await send(registry, clear.model_copy(update={"jws": mine.jws}), mine.jws)
    assert (await registry.closed(here["transition_id"]))["status"] == "applied"
    for harness, model in ((registry, "other"), (there, "churn")):
        assert (await harness.ana.get(f"/v1/models/{model}/versions/1")).json()["stage"] == "Development"
    await applied(registry, other)
    await applied(there, elsewhere)


async def test_a_decision_counts_once(registry: Harness) -> None:
    """Sent twice by the relay, by somebody else, for the next request of the same move, and after it was undone."""
    transition = await asked(registry)
    decided = signed(registry, transition)
    first = await decide(registry, decided)
    assert (await registry.closed(transition["transition_id"]))["status"] == "applied"
    await decide(registry, decided, event_id=first.id)
    assert await refusal(registry, await decide(registry, decided)) == "decision-replayed"
    back = await registry.request("churn", 1, "Archived")
    await decide(registry, signed(registry, back))
    await registry.closed(back["transition_id"])
    assert await refusal(registry, await decide(registry, decided)) == "decision-replayed"
    assert sum(e.type == StageChanged.TYPE for e in registry.heard) == 2


async def test_a_revocation_is_no_decision(registry: Harness) -> None:
    transition = await asked(registry)
    good = signed(registry, transition)
    token = sign(revocation(workspace=registry.workspace, model="churn"), registry.keys["decision"])
    assert await refusal(registry, await send(registry, good, token)) == "decision-malformed"
    await applied(registry, transition)


async def test_keys_rotate_with_overlap(registry: Harness, jwks: Path) -> None:
    """Under way while the key changes: signed before it by the former, after it by the new one. Both count."""
    at, key = time.time(), registry.keys["decision"]
    one, two, three = [await asked(registry, model) for model in ("one", "two", "three")]
    before = signed(registry, one)
    rotated = Ring((RingKey(key),)).rotated(at, at)
    put(jwks, rotated)
    await applied(registry, two, rotated.signing(at))
    await decide(registry, before)
    assert (await registry.closed(one["transition_id"]))["status"] == "applied"
    late = signed(registry, three, decided_at=now() + timedelta(seconds=LEEWAY_SECONDS + 60))
    assert await refusal(registry, await decide(registry, late)) == "decision-stale-key"
    await applied(registry, three, rotated.signing(at))


async def test_what_a_revoked_key_signed_counts_no_more_but_for_what_is_done(registry: Harness, jwks: Path) -> None:
    at, stolen = time.time(), new_key()
    ring = Ring((RingKey(registry.keys["decision"], not_after=int(at)), RingKey(stolen)))
    put(jwks, ring)
    one, two = await asked(registry, "one"), await asked(registry, "two")
    await applied(registry, one, stolen)
    revoked = ring.revoked([str(stolen.kid)], at, "compromised")
    fresh = revoked.signing(at)
    put(jwks, revoked)
    await registry.register("three")
    three = await registry.request("three", 1, "Staging")
    await applied(registry, three, fresh)  # an unknown key: the registry has read the set again
    for decided_at in (now(), now() - timedelta(days=30)):
        forged = signed(registry, two, key=stolen, decided_at=decided_at)
        assert await refusal(registry, await decide(registry, forged)) == "decision-revoked-key"
    assert (await registry.ana.get("/v1/models/one/versions/1")).json()["stage"] == "Staging"
    assert (await registry.ana.get("/v1/models/two/versions/1")).json()["stage"] == "Development"
    await applied(registry, two, fresh)


async def test_an_approval_whose_key_was_revoked_in_between_is_asked_for_again(registry: Harness, jwks: Path) -> None:
    """The registry publishes why it refused; the transition stays open until its requester takes it back, or in vain
    until it expires."""
    at, stolen = time.time(), new_key()
    ring = Ring((RingKey(registry.keys["decision"], not_after=int(at)), RingKey(stolen)))
    transition = await asked(registry)
    revoked = ring.revoked([str(stolen.kid)], at, "compromised")
    put(jwks, revoked)
    late = await decide(registry, signed(registry, transition, key=stolen))
    assert await refusal(registry, late) == "decision-revoked-key"
    again = {"to_stage": "Staging", "reason": "once more"}
    told = await registry.ana.post("/v1/models/churn/versions/1/transitions", json=again)
    assert (told.status_code, told.json()["transition_id"]) == (409, transition["transition_id"])
    path = f"/v1/transitions/{transition['transition_id']}/cancel"
    assert (await registry.ana.post(path, json={"reason": "its key was revoked"})).status_code == 200
    assert (await registry.closed(transition["transition_id"]))["status"] == "cancelled"
    await applied(registry, await registry.request("churn", 1, "Staging"), revoked.signing(at))


async def test_strangers_hold_nobody_up_for_long(
    registry: Harness, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.2)
    transition = await asked(registry)
    strangers = [await decide(registry, signed(registry, transition, key=new_key())) for _ in range(10)]
    async with asyncio.timeout(20):
        await applied(registry, transition)
    assert {await refusal(registry, stranger) for stranger in strangers} == {"decision-unknown-key"}


async def test_a_retired_key_decides_nothing_that_was_asked_for_since(registry: Harness, jwks: Path) -> None:
    """Whoever has it may date a decision back to when it signed; no true one is older than what it decides."""
    old, retired = new_key(), time.time() - 3600
    put(jwks, Ring((RingKey(old, not_after=int(retired)), RingKey(registry.keys["decision"], not_before=int(retired)))))
    transition = await asked(registry)
    forged = signed(registry, transition, key=old, decided_at=now() - timedelta(hours=2))
    assert await refusal(registry, await decide(registry, forged)) == "decision-backdated"
    await applied(registry, transition)
