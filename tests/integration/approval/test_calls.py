"""Webhook gates: real checks over HTTP, asked by workers that share a database."""

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook
from tests.integration.approval.checks import (
    SECRETS,
    Rig,
    make_rig,
    policy,
    retagged,
    webhook,
)
from tests.integration.approval.conftest import PASS, Direct, person
from tests.support.receiver import Answer, Hit, Receiver
from tests.support.waiting import until

from approval.tables import CallRow, RequestRow, of
from contracts.approval import Choice
from contracts.envelope import now
from policy.case import Ballot

TROUBLE: list[Answer | int] = [500, (429, {"retry-after": "1"}, b""), 503]


@pytest.fixture
def rig(direct: Direct) -> Rig:
    return make_rig(direct)


async def test_a_check_is_asked_and_its_answer_decides(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(f"{check.url}/fair")))
    request_id = await rig.asked("m")
    open_request = await rig.direct.request(request_id)
    assert [(gate.gate, gate.result) for gate in open_request.gates] == [("checked/fairness", "pending")]
    async with rig.worker():
        decided = await rig.decided(request_id)
    assert decided.status == "approved"
    [said] = [gate for gate in decided.gates if gate.gate == "checked/fairness"]
    assert (said.result, said.message) == ("pass", "gap 0.01")
    [answered] = await rig.answered("m")
    assert (answered.by, answered.request_digest) == ("webhook:fairness", open_request.request_digest)
    assert await rig.rows() == []

    [hit] = check.hits
    assert hit.path == "/fair"
    Webhook(SECRETS["fairness"]).verify(hit.body, hit.headers)
    assert hit.document == {
        "type": "gate.asked",
        "request_id": request_id,
        "gate": "checked/fairness",
        "request_digest": open_request.request_digest,
        "workspace": "default",
        "model": "m",
        "version": 1,
        "from": "Development",
        "to": "Staging",
        "candidate": open_request.inputs["candidate"],
        "baseline": None,
        "callback": f"https://approval.example/v1/requests/{request_id}/gates/checked/fairness/answers",
    }


async def test_a_check_that_fails_ends_the_request(rig: Rig, check: Receiver) -> None:
    digest = "sha256:" + "b" * 64
    body = b'{"result": "fail", "message": "gap 0.3", "evidence": "%s"}' % digest.encode()
    check.answer = lambda _: (200, {}, body)
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    decided = await rig.direct.request(request_id)
    assert decided.status == "rejected"
    assert decided.decision is not None
    assert "gap 0.3" in decided.decision.reason
    assert [(a.result, a.evidence) for a in await rig.answered("m")] == [("fail", digest)]


async def test_people_decide_where_a_check_cannot_tell(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: (200, {}, b'{"result": "inconclusive", "message": "too few rows"}')
    await rig.direct.publish(policy(webhook(check.url, asks="['group:risk']")))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).status == "open"
    assert await rig.rows() == []
    waived = await rig.direct.parts.people.waive(
        request_id, person("rita", "risk"), "checked/fairness", "the slice is tiny", None
    )
    assert waived.status == "approved"


async def test_a_check_in_trouble_is_asked_again_under_the_same_id(rig: Rig, check: Receiver) -> None:
    answers = iter([*TROUBLE, (200, {}, PASS)])
    check.answer = lambda _: next(answers)
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    began = time.monotonic()
    async with rig.worker():
        decided = await rig.decided(request_id)
    assert decided.status == "approved"
    assert time.monotonic() - began > 1
    assert len(check.hits) == 4
    assert len({hit.headers["webhook-id"] for hit in check.hits}) == 1
    assert len({hit.body for hit in check.hits}) == 1
    assert len(await rig.answered("m")) == 1


async def test_a_check_that_is_not_there_yet_is_asked_again(rig: Rig, check: Receiver) -> None:
    gone = Receiver(lambda _: (200, {}, PASS))
    gone.stop()
    await rig.direct.publish(policy(webhook(gone.url)))
    request_id = await rig.asked("m")
    calls = rig.calls()
    assert await calls.once()
    [row] = await rig.rows()
    assert (row.attempts, row.leased_until) == (1, None)
    assert (await rig.direct.request(request_id)).status == "open"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (400, "HTTP 400"),
        (401, "HTTP 401"),
        (404, "HTTP 404"),
        (410, "HTTP 410"),
        (204, "HTTP 204"),
        ((302, {"location": "http://127.0.0.1/"}, b""), "redirects are not followed"),
        ((200, {}, b""), "malformed"),
        ((200, {}, b"pass"), "malformed"),
        ((200, {}, b"[]"), "malformed"),
        ((200, {}, b'{"result": "passed"}'), "malformed: result"),
        ((200, {}, b'{"result": "error"}'), "malformed: result"),
        ((200, {}, b'{"result": "pass", "evidence": "md5:1"}'), "malformed: evidence"),
        ((200, {}, b'{"result": "pass", "message": "a\\u0000b"}'), "malformed: message"),
        ((200, {}, b'{"result": "pass", "message": "%s"}' % (b"x" * 70_000)), "longer than 65536"),
        ((200, {"content-encoding": "gzip"}, gzip.compress(PASS)), "compressed"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_at_once(
    rig: Rig, check: Receiver, answer: tuple[int, dict[str, str], bytes] | int, why: str
) -> None:
    check.answer = lambda _: answer
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    decided = await rig.direct.request(request_id)
    assert decided.status == "rejected"
    [answered] = await rig.answered("m")
    assert (answered.result, answered.by) == ("error", "hallmark/approval")
    assert why in answered.message
    assert not await rig.calls().once()


async def test_only_what_the_operator_allows_is_called(direct: Direct, check: Receiver) -> None:
    rig = make_rig(direct, gate_allow="10.0.0.0/8")
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).status == "rejected"
    [answered] = await rig.answered("m")
    assert answered.result == "error"
    assert "HALLMARK_GATE_ALLOW" in answered.message
    assert check.hits == []


async def test_without_its_secret_a_gate_is_an_error(direct: Direct, check: Receiver) -> None:
    rig = make_rig(direct, gate_secrets={})
    await rig.direct.publish(policy(webhook(check.url)))
    await rig.asked("m")
    assert await rig.calls().once()
    [answered] = await rig.answered("m")
    assert answered.message == "the operator has set no secret fairness in HALLMARK_GATE_SECRETS"
    assert check.hits == []


async def test_a_slow_check_is_given_up_and_asked_again(rig: Rig, check: Receiver) -> None:
    first: list[Hit] = []

    def answer(hit: Hit) -> tuple[int, dict[str, str], bytes]:
        if not first:
            first.append(hit)
            check.released.wait(30)
        return 200, {}, PASS

    check.answer = answer
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    async with rig.worker(gate_call_seconds=0.3):
        decided = await rig.decided(request_id)
    assert decided.status == "approved"
    assert len(check.hits) == 2


async def test_a_gate_that_nobody_answers_in_its_time_is_an_error(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: 503
    await rig.direct.publish(policy(webhook(check.url, timeout="2h")))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    await rig.direct.later(hours=1)
    assert (await rig.direct.request(request_id)).status == "open"
    await rig.direct.later(hours=1, seconds=1)
    decided = await rig.direct.request(request_id)
    assert decided.status == "rejected"
    assert decided.decision is not None
    assert "no answer within 2:00:00" in decided.decision.reason
    assert await rig.rows() == []
    assert not await rig.calls().once()


async def test_a_slow_check_keeps_no_other_waiting(rig: Rig, check: Receiver) -> None:
    check.answer = lambda hit: check.held((200, {}, PASS)) if hit.path == "/slow" else (200, {}, PASS)
    gates = [webhook(f"{check.url}/slow", "fairness", level="warn"), webhook(f"{check.url}/quick", "safety")]
    await rig.direct.publish(policy(*gates))
    async with rig.worker(gate_concurrency=2, gate_concurrency_each=1):
        # A gate that only warns delays no decision, so the first ones are decided while the slow check thinks.
        for n in range(4):
            assert (await rig.decided(await rig.asked(f"m{n}"))).status == "approved"
    assert sum(hit.path == "/slow" for hit in check.hits) <= 1


async def test_a_question_that_cannot_be_put_keeps_no_other_waiting(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    broken, sound = await rig.asked("m0"), await rig.asked("m1")
    async with rig.direct.db.transaction() as tx:
        request = of(RequestRow)
        await tx.execute(sa.update(request).where(request.c.request_id == broken).values(state="{}"))
    assert await rig.calls().once()
    assert (await rig.direct.request(sound)).status == "approved"
    assert not await rig.calls().once()
    assert [row.request_id for row in await rig.rows()] == [broken]


async def test_a_question_that_nobody_waits_for_is_dropped(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    async with rig.direct.db.transaction() as tx:
        older = {"request_id": request_id, "gate": "checked/fairness", "request_digest": "sha256:" + "0" * 64}
        before = now() - timedelta(hours=1)
        await tx.execute(sa.insert(of(CallRow)).values(**older, bound_at=before, next_at=before, attempts=0))
    assert await rig.calls().once()
    assert len(check.hits) == 1
    assert await rig.rows() == []


WORKER = """
import asyncio, sys
from approval.app import assemble
from approval.answers import Answers
from approval.calls import Calls, asking_of, secrets_of
from approval.clock import Clock
from approval.keyring import Keyring
from approval.settings import ApprovalSettings
from kit.auth import Access
from kit.db import Database
settings = ApprovalSettings()
db = Database(settings.database_url.get_secret_value(), name="worker")
parts = assemble(settings, db, Access.load(settings.access_file), Keyring(settings.decision_key), Clock())
answers = Answers(parts.desk, secrets_of(settings))
asyncio.run(Calls(parts.desk, answers, asking_of(settings), settings).run())
"""


def worker_process(rig: Rig) -> "subprocess.Popen[bytes]":
    settings = rig.settings
    secrets = "{" + ", ".join(f'"{name}": "{secret}"' for name, secret in SECRETS.items()) + "}"
    given = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "AUTH_JWKS": settings.auth_jwks,
        "ACCESS_FILE": str(settings.access_file),
        "DECISION_KEY": str(settings.decision_key),
        "GATE_SECRETS": secrets,
        "GATE_ALLOW": "127.0.0.1",
        "GATE_POLL_SECONDS": "0.1",
    }
    env = {**os.environ, **{f"HALLMARK_{name}": value for name, value in given.items()}}
    return subprocess.Popen([sys.executable, "-c", WORKER], env=env)


async def test_what_a_killed_worker_had_in_hand_is_asked_by_another(rig: Rig, check: Receiver) -> None:
    held: list[Hit] = []

    def answer(hit: Hit) -> tuple[int, dict[str, str], bytes]:
        if not held:
            held.append(hit)
            check.released.wait(60)
        return 200, {}, PASS

    check.answer = answer
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    process = await asyncio.to_thread(worker_process, rig)
    try:
        await until(lambda: held, 60)
    finally:
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    [row] = await rig.rows()
    assert row.leased_until is not None
    assert not await rig.calls().once()  # nobody knows yet that the worker is dead
    await rig.direct.later(seconds=rig.settings.gate_lease_seconds + 1)
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).status == "approved"
    assert len({hit.headers["webhook-id"] for hit in check.hits}) == 1
    assert len(await rig.answered("m")) == 1


async def test_two_workers_that_hold_the_same_question_record_one_answer(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    one, other = rig.calls(), rig.calls()
    first = await one.lease()
    await rig.direct.later(seconds=rig.settings.gate_lease_seconds + 1)
    second = await other.lease()
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    await asyncio.gather(one.make(first), other.make(second))
    assert (await rig.direct.request(request_id)).status == "approved"
    assert len(await rig.answered("m")) == 1


async def test_a_worker_that_is_late_does_not_put_off_its_successor(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: 503
    await rig.direct.publish(policy(webhook(check.url)))
    await rig.asked("m")
    calls = rig.calls()
    first = await calls.lease()
    await rig.direct.later(seconds=rig.settings.gate_lease_seconds + 1)
    second = await calls.lease()
    assert first is not None
    assert second is not None
    await calls.make(first)
    [row] = await rig.rows()
    assert row.leased_until is not None


async def test_workers_share_the_questions(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    ids = [await rig.asked(f"m{n}") for n in range(20)]
    async with rig.worker(), rig.worker(), rig.worker():
        for request_id in ids:
            assert (await rig.decided(request_id)).status == "approved"
    assert len(check.hits) == len({hit.headers["webhook-id"] for hit in check.hits}) == 20


async def test_what_a_call_brings_after_the_request_changed_is_passed_over(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: check.held((200, {}, PASS)) if len(check.hits) == 1 else (200, {}, b'{"result": "fail"}')
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    call = asyncio.create_task(rig.calls().once())
    await until(lambda: check.hits)
    await retagged(rig, "m")
    check.released.set()
    assert await call
    assert (await rig.direct.request(request_id)).status == "open"
    assert await rig.answered("m") == []
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).status == "rejected"


async def test_people_are_asked_when_the_checks_have_passed(rig: Rig, check: Receiver) -> None:
    rules = "{id: review, meaning: I looked, from: ['group:reviewers'], count: 1}"
    await rig.direct.publish(f"{policy(webhook(check.url))}  approvals: {{rules: [{rules}]}}\n")
    request_id = await rig.asked("m")
    assert (await rig.direct.request(request_id)).gates_passed is False
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).gates_passed is True
    done = await rig.direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    assert done.status == "approved"
