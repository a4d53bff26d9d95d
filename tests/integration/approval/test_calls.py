"""Webhook gates: real checks over HTTP, asked by workers that share a database, and answers that are posted later."""

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook
from tests.integration.approval.checks import PASS, SECRETS, Check, Hit, Rig, make_rig, policy, until, webhook
from tests.integration.approval.conftest import Direct, person

from contracts.approval import Choice
from contracts.registry import VersionTagged
from kit.webhooks import headers_of, new_secret
from policy.people import Ballot


@pytest.fixture
def check() -> Iterator[Check]:
    server = Check()
    yield server
    server.stop()


@pytest.fixture
def rig(direct: Direct) -> Rig:
    return make_rig(direct)


async def retagged(rig: Rig, model: str) -> None:
    """Something that every request of the version rests on changes."""
    known = rig.direct.registry.versions[model, 1]
    tags = {"set": {"at": str(time.monotonic_ns())}}
    event = {"workspace": "default", "model": model, "version": 1, "digest": known.digest, "tags": tags, "by": "ana"}
    fields = VersionTagged.model_fields
    message = VersionTagged.model_validate({name: value for name, value in event.items() if name in fields})
    await rig.direct.registry.publish(message, model, 1)


async def test_a_check_is_asked_and_its_answer_decides(rig: Rig, check: Check) -> None:
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


async def test_a_check_that_fails_ends_the_request(rig: Rig, check: Check) -> None:
    digest = "sha256:" + "b" * 64
    check.answer = lambda _: (200, {}, b'{"result": "fail", "message": "gap 0.3", "evidence": "%s"}' % digest.encode())
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    decided = await rig.direct.request(request_id)
    assert decided.status == "rejected"
    assert decided.decision is not None
    assert "gap 0.3" in decided.decision.reason
    assert [(a.result, a.evidence) for a in await rig.answered("m")] == [("fail", digest)]


async def test_people_decide_where_a_check_cannot_tell(rig: Rig, check: Check) -> None:
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


async def test_a_check_in_trouble_is_asked_again_under_the_same_id(rig: Rig, check: Check) -> None:
    answers = iter([500, (429, {"retry-after": "1"}, b""), 503, (200, {}, PASS)])
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


async def test_a_check_that_is_not_there_yet_is_asked_again(rig: Rig, check: Check) -> None:
    gone = Check()
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
    rig: Rig, check: Check, answer: tuple[int, dict[str, str], bytes] | int, why: str
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


async def test_only_what_the_operator_allows_is_called(direct: Direct, check: Check) -> None:
    rig = make_rig(direct, gate_allow="10.0.0.0/8")
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).status == "rejected"
    [answered] = await rig.answered("m")
    assert answered.result == "error"
    assert "HALLMARK_GATE_ALLOW" in answered.message
    assert check.hits == []


async def test_without_its_secret_a_gate_is_an_error(direct: Direct, check: Check) -> None:
    rig = make_rig(direct, gate_secrets={})
    await rig.direct.publish(policy(webhook(check.url)))
    await rig.asked("m")
    assert await rig.calls().once()
    [answered] = await rig.answered("m")
    assert answered.message == "the operator has set no secret fairness in HALLMARK_GATE_SECRETS"
    assert check.hits == []


async def test_a_slow_check_is_given_up_and_asked_again(rig: Rig, check: Check) -> None:
    first = []

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


async def test_a_gate_that_nobody_answers_in_its_time_is_an_error(rig: Rig, check: Check) -> None:
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


async def test_a_slow_check_keeps_no_other_waiting(rig: Rig, check: Check) -> None:
    check.answer = lambda hit: check.held() if hit.path == "/slow" else (200, {}, PASS)
    gates = [webhook(f"{check.url}/slow", "fairness", level="warn"), webhook(f"{check.url}/quick", "safety")]
    await rig.direct.publish(policy(*gates))
    async with rig.worker(gate_concurrency=2, gate_concurrency_each=1):
        # A gate that only warns delays no decision, so the first ones are decided while the slow check thinks.
        for n in range(4):
            assert (await rig.decided(await rig.asked(f"m{n}"))).status == "approved"
    assert sum(hit.path == "/slow" for hit in check.hits) <= 1


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


async def test_what_a_killed_worker_had_in_hand_is_asked_by_another(rig: Rig, check: Check) -> None:
    held = []

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


async def test_two_workers_that_hold_the_same_question_record_one_answer(rig: Rig, check: Check) -> None:
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


async def test_a_worker_that_is_late_does_not_put_off_its_successor(rig: Rig, check: Check) -> None:
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


async def test_workers_share_the_questions(rig: Rig, check: Check) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    ids = [await rig.asked(f"m{n}") for n in range(20)]
    async with rig.worker(), rig.worker(), rig.worker():
        for request_id in ids:
            assert (await rig.decided(request_id)).status == "approved"
    assert len(check.hits) == len({hit.headers["webhook-id"] for hit in check.hits}) == 20


# -- answers that are posted ---------------------------------------------------------------------------------------


async def test_a_check_may_answer_later(rig: Rig, check: Check) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    calls = rig.calls()
    assert await calls.once()
    assert not await calls.once()
    await rig.direct.later(hours=5)
    assert not await calls.once()
    digest = check.hits[0].document["request_digest"]
    response = await rig.post_answer(request_id, digest, message="done")
    assert response.status_code == 200, response.text
    assert response.json() == {
        "request_id": request_id,
        "gate": "checked/fairness",
        "result": "pass",
        "request_digest": digest,
        "status": "approved",
    }
    assert [(a.result, a.message, a.by) for a in await rig.answered("m")] == [("pass", "done", "webhook:fairness")]
    assert await rig.rows() == []


async def test_what_the_public_library_signs_is_taken(rig: Rig, check: Check) -> None:
    from datetime import UTC, datetime

    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    now = datetime.now(UTC)
    body = f'{{"result": "fail", "message": "zu groß", "request_digest": "{digest}"}}'
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_7",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRETS["fairness"]).sign("msg_7", now, body),
    }
    async with rig.anybody(**headers) as client:
        url = f"/v1/requests/{request_id}/gates/checked%2Ffairness/answers"
        response = await client.post(url, content=body.encode())
    assert response.status_code == 200, response.text
    assert (await rig.direct.request(request_id)).status == "rejected"


async def test_who_does_not_sign_is_not_heard(rig: Rig, check: Check) -> None:
    await rig.direct.publish(policy(webhook(check.url), webhook(check.url, "safety")))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    now = time.time()
    for options, status, code in (
        ({"secret": new_secret()}, 401, "bad-signature"),
        ({"at": now - 400}, 401, "bad-signature"),
        ({"at": now + 400}, 401, "bad-signature"),
        ({"secret": SECRETS["safety"]}, 403, "wrong-secret"),
    ):
        response = await rig.post_answer(request_id, digest, **options)
        assert (response.status_code, response.json()["type"]) == (status, f"urn:hallmark:problem:{code}")
    url = f"/v1/requests/{request_id}/gates/checked/fairness/answers"
    body = {"result": "pass", "request_digest": digest}
    for client in (rig.anybody(), rig.ana, rig.client("root", "admins")):
        assert (await client.post(url, json=body)).status_code == 401
    # The question itself is signed with the secret, too: sent back, it is no answer.
    assert await rig.calls().once()
    hit = check.hits[0]
    headers = {name: value for name, value in hit.headers.items() if name.startswith(("webhook-", "content-type"))}
    async with rig.anybody(**headers) as client:
        assert (await client.post(url, content=hit.body)).status_code == 422


async def test_nobody_learns_without_a_signature_which_requests_there_are(rig: Rig, check: Check) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    unsigned = [await rig.post_answer(i, digest, secret=new_secret()) for i in (request_id, "nothing")]
    assert [response.status_code for response in unsigned] == [401, 401]
    assert unsigned[0].json()["detail"] == unsigned[1].json()["detail"]
    signed = [
        await rig.post_answer("nothing", digest),
        await rig.post_answer(request_id, digest, gate="checked/other"),
        await rig.post_answer(request_id, digest, gate="production/accuracy"),
    ]
    assert [response.status_code for response in signed] == [404, 404, 404]


async def test_an_answer_to_an_older_question_is_passed_over(rig: Rig, check: Check) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    calls = rig.calls()
    assert await calls.once()
    await retagged(rig, "m")
    old, new = check.hits[0].document["request_digest"], (await rig.direct.request(request_id)).request_digest
    assert old != new
    response = await rig.post_answer(request_id, old)
    assert (response.status_code, response.json()["type"]) == (409, "urn:hallmark:problem:request-changed")
    assert (await rig.direct.request(request_id)).status == "open"
    assert await rig.answered("m") == []
    assert await calls.once()  # the check is asked about the request as it is now
    assert check.hits[1].document["request_digest"] == new
    assert check.hits[1].headers["webhook-id"] != check.hits[0].headers["webhook-id"]
    assert (await rig.post_answer(request_id, new)).status_code == 200
    assert (await rig.direct.request(request_id)).status == "approved"


async def test_what_a_call_brings_after_the_request_changed_is_passed_over(rig: Rig, check: Check) -> None:
    check.answer = lambda _: check.held() if len(check.hits) == 1 else (200, {}, b'{"result": "fail"}')
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


async def test_an_answer_is_final_and_may_be_repeated(rig: Rig, check: Check) -> None:
    """So a message that was overheard, and is sent again in its five minutes, changes nothing."""
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url, waivable_by="['group:risk']")))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    assert (await rig.post_answer(request_id, digest, result="inconclusive")).status_code == 200
    assert (await rig.post_answer(request_id, digest, result="fail")).status_code == 200
    assert (await rig.post_answer(request_id, digest, result="fail")).status_code == 200
    for result in ("pass", "inconclusive"):
        response = await rig.post_answer(request_id, digest, result=result)
        assert (response.status_code, response.json()["type"]) == (409, "urn:hallmark:problem:gate-answered")
    assert [a.result for a in await rig.answered("m")] == ["inconclusive", "fail"]


async def test_who_answers_a_decided_request_is_told_so(rig: Rig, check: Check) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    assert (await rig.post_answer(request_id, digest)).json()["status"] == "approved"
    assert (await rig.post_answer(request_id, digest)).status_code == 200
    response = await rig.post_answer(request_id, digest, result="fail")
    assert (response.status_code, response.json()["type"]) == (409, "urn:hallmark:problem:request-closed")


async def test_posted_answers_and_calls_race_to_one_answer(rig: Rig, check: Check) -> None:
    check.answer = lambda _: (200, {}, b'{"result": "fail"}')
    await rig.direct.publish(policy(webhook(check.url, waivable_by="['group:risk']")))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    await asyncio.gather(
        rig.calls().once(), *(rig.post_answer(request_id, digest, result=r) for r in ("pass", "fail") * 5)
    )
    answered = await rig.answered("m")
    assert len(answered) == 1
    assert answered[0].result in ("pass", "fail")


async def test_a_late_answer_counts_while_the_request_is_open(rig: Rig, check: Check) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url, timeout="1h", waivable_by="['group:risk']")))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    await rig.direct.later(hours=2)
    late = await rig.direct.request(request_id)
    assert (late.status, late.gates[0].result) == ("open", "error")
    assert (await rig.post_answer(request_id, late.request_digest)).status_code == 200
    assert (await rig.direct.request(request_id)).status == "approved"


async def test_people_are_asked_when_the_checks_have_passed(rig: Rig, check: Check) -> None:
    text = policy(webhook(check.url)).replace("{to: Staging}", "{to: Staging}").rstrip()
    rules = "{id: review, meaning: I looked, from: ['group:reviewers'], count: 1}"
    await rig.direct.publish(f"{text}\n  approvals: {{rules: [{rules}]}}\n")
    request_id = await rig.asked("m")
    assert (await rig.direct.request(request_id)).gates_passed is False
    assert await rig.calls().once()
    assert (await rig.direct.request(request_id)).gates_passed is True
    done = await rig.direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    assert done.status == "approved"


def test_the_headers_of_a_message_are_those_of_the_standard() -> None:
    assert set(headers_of(SECRETS["fairness"], "m", 1, b"")) == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
