"""Questions to external checks and what their answers mean, without a server; and the settings of both."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from approval.answers import MAX_ANSWER, Asked, Said
from approval.asking import Again, Asking, Later, Question, body_of, understood
from approval.domain import Request, evolve
from approval.settings import ApprovalSettings
from contracts.approval import RequestOpened
from contracts.lifecycle import Stage, TransitionKind
from kit.outbound import Guard
from kit.webhooks import new_secret

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
COMMON: dict[str, Any] = {
    "database_url": "postgresql://x",
    "kafka_bootstrap": "x:1",
    "auth_jwks": "x",
    "access_file": "x",
    "decision_key": "x",
}


def request(**changes: Any) -> Request:
    opened = RequestOpened(
        transition_id="t-1",
        kind=TransitionKind.PROMOTION,
        workspace="default",
        model="größe",
        version=3,
        digest=DIGEST,
        artifact_digest=DIGEST,
        from_stage=Stage.STAGING,
        to_stage=Stage.PRODUCTION,
        requested_by="ana",
        reason="better",
        policies=(),
        inputs={
            "candidate": {"version": 3, "metrics": {"auc": 0.9}},
            "baseline": {"version": 2},
            "request": {"from": "Staging", "to": "Production", "kind": "promotion"},
        },
        inputs_digest=DIGEST,
        request_digest=DIGEST,
        expires_at=AT + timedelta(hours=1),
    )
    return evolve(None, opened, at=AT, correlationid="c", event_id="e").model_copy(update=changes)


def question(**changes: Any) -> Question:
    given = {"request_id": "t-1", "gate": "p/fairness", "request_digest": DIGEST, "bound_at": AT, **changes}
    return Question(Asked(**given), "https://check.example/", "fairness", b"{}")


def test_a_check_is_told_what_it_is_asked_about() -> None:
    body = body_of(request(), "p/fairness", "https://approval.example/")
    assert body == body_of(request(), "p/fairness", "https://approval.example")
    assert json.loads(body) == {
        "type": "gate.asked",
        "request_id": "t-1",
        "gate": "p/fairness",
        "request_digest": DIGEST,
        "workspace": "default",
        "model": "größe",
        "version": 3,
        "from": "Staging",
        "to": "Production",
        "candidate": {"version": 3, "metrics": {"auc": 0.9}},
        "baseline": {"version": 2},
        "callback": "https://approval.example/v1/requests/t-1/gates/p/fairness/answers",
    }


def test_each_question_has_an_id_of_its_own_that_stays() -> None:
    assert question().message_id == question().message_id
    others = [question(**{name: "other"}) for name in ("request_id", "gate", "request_digest")]
    others.append(question(bound_at=AT + timedelta(seconds=1)))
    assert len({q.message_id for q in (question(), *others)}) == 5
    assert question().message_id.startswith("msg_")
    assert "." not in question().message_id


@pytest.mark.parametrize(
    ("status", "headers", "body", "heard"),
    [
        (200, {}, b'{"result": "pass"}', Said("pass")),
        (200, {}, b'{"result": "inconclusive", "message": "m", "more": 1}', Said("inconclusive", "m")),
        (200, {}, b'{"result": "fail", "evidence": "%s"}' % DIGEST.encode(), Said("fail", "", DIGEST)),
        (202, {}, b"", Later()),
        (202, {}, b'{"result": "pass"}', Later()),
        (408, {}, b"", Again("HTTP 408")),
        (425, {}, b"", Again("HTTP 425")),
        (429, {"retry-after": "7"}, b"", Again("HTTP 429", 7)),
        (429, {"retry-after": "99999999"}, b"", Again("HTTP 429", 3600)),
        (429, {"retry-after": "soon"}, b"", Again("HTTP 429")),
        (429, {"retry-after": "-7"}, b"", Again("HTTP 429")),
        (500, {}, b'{"result": "pass"}', Again("HTTP 500")),
        (599, {}, b"", Again("HTTP 599")),
    ],
)
def test_what_an_answer_means(status: int, headers: dict[str, str], body: bytes, heard: object) -> None:
    assert understood(status, headers, body) == heard


@pytest.mark.parametrize("status", [100, 201, 204, 206, 301, 307, 400, 401, 403, 404, 410, 422, 451])
def test_other_answers_are_errors(status: int) -> None:
    heard = understood(status, {}, b'{"result": "pass"}')
    assert isinstance(heard, Said)
    assert heard.result == "error"
    assert str(status) in heard.message


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"\xff",
        b"null",
        b'"pass"',
        b"{}",
        b'{"result": true}',
        b'{"result": "PASS"}',
        b'{"result": "waived"}',
        b'{"result": "pending"}',
        b'{"result": "pass", "message": 1}',
        b'{"result": "pass", "message": "\\ud800"}',
        b'{"result": "pass", "evidence": "x"}',
        b'{"result": "pass", "message": "' + b"x" * 10_001 + b'"}',
        b"[" * 60_000,
    ],
)
def test_a_malformed_answer_is_an_error_with_the_reason(body: bytes | None) -> None:
    heard = understood(200, {}, body)
    assert isinstance(heard, Said)
    assert heard.result == "error"
    assert "the check's answer is" in heard.message
    assert len(heard.message) < 2_100


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://8.8.8.8/", "need https"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::1]/", "not public"),
        ("https://169.254.169.254/latest/meta-data", "not public"),
        ("https://user@8.8.8.8/", "without a user"),
        ("https:///path", "must be a URL"),
        ("https://x:99999/", "is not a URL"),
        ("https://[1/", "is not a URL"),
    ],
)
async def test_addresses_that_may_not_be_called_are_errors_at_once(url: str, why: str) -> None:
    asking = Asking(Guard(setting="HALLMARK_GATE_ALLOW"), {"fairness": new_secret()}, 2)
    heard = await asking(Question(question().asked, url, "fairness", b"{}"))
    assert isinstance(heard, Said)
    assert heard.result == "error"
    assert why in heard.message


async def test_a_host_without_an_address_is_asked_again() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    asking = Asking(Guard(resolver=nothing), {"fairness": new_secret()}, 2)
    assert await asking(question()) == Again("OSError: no such host")


async def test_a_name_that_turns_private_after_the_look_is_not_called() -> None:
    addresses = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(addresses)

    heard = await Asking(Guard(resolver=rebinding), {"fairness": new_secret()}, 2)(question())
    assert isinstance(heard, Again)
    assert "not public" in heard.why


def test_the_longest_answer_leaves_room_for_its_words() -> None:
    assert MAX_ANSWER > 4 * 10_000


# -- settings ------------------------------------------------------------------------------------------------------


def test_settings_of_gates_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = new_secret()
    monkeypatch.setenv("HALLMARK_GATE_SECRETS", json.dumps({"fairness": secret}))
    monkeypatch.setenv("HALLMARK_GATE_ALLOW", "checks.internal, 10.0.0.0/8,")
    settings = ApprovalSettings(**COMMON)
    assert settings.gate_secrets["fairness"].get_secret_value() == secret
    assert settings.gate_allow == ("checks.internal", "10.0.0.0/8")
    assert secret not in repr(settings)
    monkeypatch.setenv("HALLMARK_GATE_SECRETS", "")
    assert ApprovalSettings(**COMMON).gate_secrets == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATE_SECRETS", "fairness=s3cret"),
        ("GATE_SECRETS", '["s3cret"]'),
        ("GATE_SECRETS", '{"fairness": "s3cret"}'),
        ("GATE_SECRETS", '{"fairness": "whsec_s3cret"}'),
        ("GATE_SECRETS", '{"Not A Name": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}'),
        ("GATE_LEASE_SECONDS", "10"),
        ("GATE_CONCURRENCY", "0"),
        ("GATE_RETRY_SECONDS", "0"),
    ],
)
def test_bad_settings_are_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HALLMARK_{name}", value)
    with pytest.raises(ValidationError) as caught:
        ApprovalSettings(**COMMON)
    [error] = caught.value.errors()
    assert error["loc"][0] == name.lower()
    assert "s3cret" not in error["msg"]


def test_a_store_needs_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_S3_ENDPOINT", "http://s3:8333")
    with pytest.raises(ValidationError) as caught:
        ApprovalSettings(**COMMON)
    assert [error["loc"] for error in caught.value.errors()] == [("s3_access_key",), ("s3_secret_key",)]
    monkeypatch.delenv("HALLMARK_S3_ENDPOINT")
    assert ApprovalSettings(**COMMON).s3_bucket == "hallmark-evidence"
