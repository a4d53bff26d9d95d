"""`hallmark notify`: formats, secrets, keys, and accounts of Slack."""

import json

from tests.support.fake_approval import AT, Run, Service

MADE = {"subscription_id": "s-1", "channel": "webhook", "address": "https://h/****", "format": "mlflow"}


def test_a_webhook_is_asked_for_in_a_format(run: Run, service: Service) -> None:
    service.answers["POST /v1/subscriptions"] = (201, MADE)
    code, _, _ = run("notify", "subscribe", "webhook", "https://h/x", "--format", "mlflow")
    assert code == 0
    assert service.sent("POST /v1/subscriptions")["format"] == "mlflow"
    run("notify", "subscribe", "pagerduty", "k" * 32)
    sent = service.sent("POST /v1/subscriptions")
    assert (sent["channel"], "format" in sent) == ("pagerduty", False)


def test_a_new_secret_is_shown_with_how_long_the_former_one_counts(run: Run, service: Service) -> None:
    path = "POST /v1/subscriptions/s-1/secret"
    service.answers[path] = (200, {"subscription_id": "s-1", "secret": "whsec_x", "former_until": AT})
    code, out, _ = run("notify", "rotate", "s-1")
    assert code == 0
    assert out.splitlines()[0] == "secret: whsec_x"
    assert "the former one signs too until" in out
    assert service.sent(path) == {"at_once": False}
    service.answers[path] = (200, {"subscription_id": "s-1", "secret": "whsec_y", "former_until": None})
    code, out, _ = run("notify", "rotate", "s-1", "--at-once", "--json")
    assert (code, json.loads(out)["secret"]) == (0, "whsec_y")
    assert service.sent(path) == {"at_once": True}
    assert run("notify", "rotate", "s-1")[1] == "secret: whsec_y\n"


def test_the_public_keys_are_listed(run: Run, service: Service) -> None:
    service.answers["GET /v1/webhook-keys"] = (200, {"keys": [{"kid": "k", "key": "whpk_x", "state": "active"}]})
    code, out, _ = run("notify", "keys")
    assert code == 0
    assert "whpk_x" in out
    assert json.loads(run("notify", "keys", "--json")[1])[0]["state"] == "active"


def test_an_account_of_slack_is_linked_and_unlinked(run: Run, service: Service) -> None:
    made = {"code": "ABCDE-FGHJK", "say": "/hallmark link ABCDE-FGHJK", "expires_at": AT}
    service.answers["POST /v1/slack/codes"] = (200, made)
    code, out, _ = run("notify", "slack", "link")
    assert code == 0
    assert out.splitlines()[-1] == "/hallmark link ABCDE-FGHJK"
    assert json.loads(run("notify", "slack", "link", "--json")[1])["code"] == "ABCDE-FGHJK"
    service.answers["DELETE /v1/slack/accounts"] = (200, {"accounts": 2})
    assert run("notify", "slack", "unlink")[1] == "unlinked: 2\n"
