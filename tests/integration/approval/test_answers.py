"""Answers that external checks post later: signed, final, and to the question that was asked."""

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook
from tests.integration.approval.checks import SECRETS, Rig, make_rig, policy, retagged, webhook
from tests.integration.approval.conftest import Direct
from tests.support.receiver import Receiver

from approval import answers
from kit.webhooks import new_secret


@pytest.fixture
def rig(direct: Direct) -> Rig:
    return make_rig(direct)


async def test_a_check_may_answer_later(rig: Rig, check: Receiver) -> None:
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


async def test_what_the_public_library_signs_is_taken(rig: Rig, check: Receiver) -> None:
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    now = datetime.now(UTC)
    question = {"request_id": request_id, "gate": "checked/fairness", "request_digest": digest}
    body = json.dumps({**question, "result": "fail", "message": "zu groß"}, ensure_ascii=False)
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


async def test_who_does_not_sign_is_not_heard(rig: Rig, check: Receiver) -> None:
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
    long = await rig.post_answer(request_id, digest, message="x" * 70_000)
    assert (long.status_code, long.json()["type"]) == (413, "urn:hallmark:problem:body-too-large")
    url = f"/v1/requests/{request_id}/gates/checked/fairness/answers"
    body = {"request_id": request_id, "gate": "checked/fairness", "result": "pass", "request_digest": digest}
    for client in (rig.anybody(), rig.ana, rig.client("root", "admins")):
        assert (await client.post(url, json=body)).status_code == 401
    # The question itself is signed with the secret, too: sent back, it is no answer.
    assert await rig.calls().once()
    hit = check.hits[0]
    headers = {name: value for name, value in hit.headers.items() if name.startswith(("webhook-", "content-type"))}
    async with rig.anybody(**headers) as client:
        assert (await client.post(url, content=hit.body)).status_code == 422


async def test_an_answer_is_good_for_its_question_only(rig: Rig, check: Receiver) -> None:
    """Though the other gate, or the other request, has the same secret."""
    await rig.direct.publish(policy(webhook(check.url), webhook(check.url, "bias")))
    request_id, other = await rig.asked("m"), await rig.asked("n")
    digest = (await rig.direct.request(request_id)).request_digest
    for signed in ({"gate": "checked/bias"}, {"request_id": other}):
        response = await rig.post_answer(request_id, digest, signed=signed)
        assert (response.status_code, response.json()["type"]) == (403, "urn:hallmark:problem:wrong-question")
    assert (await rig.direct.request(request_id)).answers == ()


async def test_answers_to_one_question_end(rig: Rig, check: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWERS", 3)
    await rig.direct.publish(policy(webhook(check.url, asks="['group:risk']")))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    for n in range(4):
        said = await rig.post_answer(request_id, digest, result="inconclusive", message=f"look {n}")
        assert said.status_code == (200 if n < 3 else 409)
    assert len((await rig.direct.request(request_id)).answers) == 3


async def test_nobody_learns_without_a_signature_which_requests_there_are(rig: Rig, check: Receiver) -> None:
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


async def test_an_answer_to_an_older_question_is_passed_over(rig: Rig, check: Receiver) -> None:
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


async def test_an_answer_is_final_and_may_be_repeated(rig: Rig, check: Receiver) -> None:
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


async def test_who_answers_a_decided_request_is_told_so(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    digest = (await rig.direct.request(request_id)).request_digest
    assert (await rig.post_answer(request_id, digest)).json()["status"] == "approved"
    assert (await rig.post_answer(request_id, digest)).status_code == 200
    response = await rig.post_answer(request_id, digest, result="fail")
    assert (response.status_code, response.json()["type"]) == (409, "urn:hallmark:problem:request-closed")


async def test_posted_answers_and_calls_race_to_one_answer(rig: Rig, check: Receiver) -> None:
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


async def test_a_late_answer_counts_while_the_request_is_open(rig: Rig, check: Receiver) -> None:
    check.answer = lambda _: 202
    await rig.direct.publish(policy(webhook(check.url, timeout="1h", waivable_by="['group:risk']")))
    request_id = await rig.asked("m")
    assert await rig.calls().once()
    await rig.direct.later(hours=2)
    late = await rig.direct.request(request_id)
    assert (late.status, late.gates[0].result) == ("open", "error")
    assert (await rig.post_answer(request_id, late.request_digest)).status_code == 200
    assert (await rig.direct.request(request_id)).status == "approved"
