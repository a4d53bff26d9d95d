"""The command line: exit codes, JSON, errors for people, and an example in every help."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.tlog_copy import leaf_hash, root_of, vkeys, write_copy
from typer.testing import CliRunner

from hallmark import Client, cli, output
from hallmark.commands import audit, model, notify, request, stage, version
from hallmark.results import Subscription

Run = Callable[..., tuple[int, str, str]]
TRANSITION = {
    "transition_id": "t-1",
    "kind": "promotion",
    "workspace": "default",
    "model": "fraud",
    "version": 1,
    "from_stage": "Staging",
    "to_stage": "Production",
    "status": "open",
    "requested_by": "ana",
    "reason": "better",
}


@pytest.fixture
def answers() -> dict[str, Any]:
    """Path -> (status, body)."""
    return {}


@pytest.fixture
def run(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def handler(request: httpx2.Request) -> httpx2.Response:
        status, body = answers[request.url.path]
        return httpx2.Response(status, json=body)

    def client(_: object) -> Client:
        return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(handler))

    monkeypatch.setattr(output.Caller, "client", client)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hallmark", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = capsys.readouterr()
        code = exit_.value.code
        return code if isinstance(code, int) else 0, told.out, told.err

    return run


@pytest.mark.parametrize(("status", "code"), [("applied", 0), ("open", 3), ("refused", 4), ("expired", 4)])
def test_exit_codes_tell_what_became_of_a_request(run: Run, answers: dict[str, Any], status: str, code: int) -> None:
    answers["/v1/models/fraud/versions/1/transitions"] = (202, {**TRANSITION, "status": status})
    found, out, _ = run("stage", "request", "fraud", "1", "production", "--reason", "r", "--wait", "0", "--json")
    assert found == code
    assert json.loads(out)["status"] == status


@pytest.mark.parametrize("command", ["request", "rollback"])
def test_fields_for_the_policies_are_sent(
    answers: dict[str, Any], command: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    sent: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        return httpx2.Response(202, json={**TRANSITION, "status": "applied", "fields": sent[-1].get("fields", {})})

    transport = httpx2.MockTransport(handler)
    monkeypatch.setattr(output.Caller, "client", lambda _: Client("http://r", "t", retry_for=0, transport=transport))
    what = {"request": ("fraud", "1", "Production"), "rollback": ("fraud",)}[command]
    given = ("--field", "change_ticket=CHG1", "--field", "plan=a=b")
    code, out, _ = run("stage", command, *what, "--reason", "r", *given, "--json")
    assert (code, json.loads(out)["fields"]) == (0, {"change_ticket": "CHG1", "plan": "a=b"})
    assert run("stage", command, *what, "--reason", "r")[0] == 0
    assert [body.get("fields") for body in sent] == [{"change_ticket": "CHG1", "plan": "a=b"}, None]
    for wrong in (("--field", "ticket"), ("--field", "a=1", "--field", "a=2")):
        assert run("stage", command, *what, "--reason", "r", *wrong)[0] == 2


def test_a_revoked_version_is_shown_as_such(run: Run, answers: dict[str, Any]) -> None:
    told = {"version": 1, "reason": "it leaks", "by": "olga", "at": "2026-01-01T00:00:00+00:00", "model": "fraud"}
    answers["/v1/models/fraud/resolve"] = (
        410,
        {"type": "urn:hallmark:problem:version-revoked", "detail": "olga revoked version 1: it leaks", **told},
    )
    code, _, err = run("serving", "resolve", "fraud")
    assert code == 1
    assert "olga revoked version 1: it leaks" in err
    target = {
        "target": "Production",
        "desired": {"version": 1, "revoked": told},
        "actual": [{"server": "s1", "version": 1, "state": "serving", "in_step": False, "revoked": True}],
    }
    body = {"workspace": "default", "model": "fraud", "in_step": False, "targets": [target]}
    answers["/v1/models/fraud/serving"] = (200, body)
    assert run("serving", "status", "fraud")[1].count("1 (revoked)") == 2
    item = {"model": "fraud", "version": 1, "stage": "Archived", "reason": "revoked", "servers": ["s1", "s2"]}
    answers["/v1/stale"] = (200, {"items": [item], "next": None})
    assert "s1, s2" in run("serving", "stale")[1]


def test_a_job_waits_until_enough_servers_run_it(run: Run, answers: dict[str, Any]) -> None:
    def server(name: str, version: int, state: str = "serving") -> dict[str, Any]:
        return {"server": name, "version": version, "state": state, "in_step": version == 2 and state == "serving"}

    fleet = [server("a", 2), server("b", 2), server("c", 1), server("d", 1, "stopped")]
    target = {"target": "Production", "desired": {"version": 2}, "actual": fleet}
    answers["/v1/models/fraud/serving"] = (
        200,
        {"workspace": "w", "model": "fraud", "in_step": False, "targets": [target]},
    )
    wait = ("serving", "wait", "fraud", "--wait", "0", "--json")
    code, out, _ = run(*wait)
    assert (code, json.loads(out)["in_step"], json.loads(out)["servers"]) == (3, 2, 3)
    assert run(*wait, "--share", "0.6")[0] == 0
    assert run(*wait, "--alias", "live")[0] == 3
    fleet.clear()
    assert run(*wait, "--share", "0")[0] == 3, "nobody at all is no fleet"


@pytest.mark.parametrize(("status", "code"), [(404, 1), (401, 1), (500, 1), (403, 4), (409, 4), (422, 4)])
def test_errors_go_to_stderr_without_a_traceback(run: Run, answers: dict[str, Any], status: int, code: int) -> None:
    body = {"type": "urn:hallmark:problem:some-code", "detail": "do [this] instead", "request_id": "r-9"}
    answers["/v1/models/fraud"] = (status, body)
    found, out, err = run("model", "show", "fraud")
    assert (found, out) == (code, "")
    assert "do [this] instead" in err
    assert "some-code" in err
    assert "r-9" in err
    assert "Traceback" not in err


def test_wrong_usage_is_exit_2(run: Run) -> None:
    assert run("stage", "request", "fraud")[0] == 2
    assert run("version", "show", "fraud", "zero")[0] == 2
    assert run("nonsense")[0] == 2


def test_bad_pairs_are_wrong_usage(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x")
    code, _, err = run("version", "register", "fraud", str(file), "--metric", "accuracy")
    assert code == 2
    assert "NAME=VALUE" in err


@pytest.mark.parametrize("option", ["--metric", "--param", "--tag"])
def test_a_name_given_twice_is_wrong_usage(run: Run, tmp_path: Path, option: str) -> None:
    file = tmp_path / "m.bin"
    file.write_bytes(b"x")
    code, _, err = run("version", "register", "fraud", str(file), option, "a=1", option, "a=2")
    assert code == 2
    assert "given twice" in err


@pytest.mark.parametrize("name", ["a/b", ".a", "a:b", " a", "", "a" * 201])
def test_a_bad_name_is_explained_before_anything_is_asked(run: Run, tmp_path: Path, name: str) -> None:
    file = tmp_path / "m.bin"
    file.write_bytes(b"x")
    code, _, err = run("version", "register", name, str(file))  # no answers: a request would raise KeyError
    assert code == 1
    assert "no slash, colon" in err


@pytest.mark.parametrize("url", ["localhost:8801", "127.0.0.1:8801", "ftp://h", "http://"])
def test_an_address_without_a_scheme_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["hallmark", "--url", url, "model", "list"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    told = capsys.readouterr().err
    assert url in told
    assert "http://127.0.0.1:8801" in told


def test_deliveries_are_listed(run: Run, answers: dict[str, Any]) -> None:
    delivery = {"delivery_id": "d-1", "event_type": "hallmark.stage.changed.v1", "status": "dead", "attempts": 3}
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    answers["/.well-known/hallmark.json"] = (200, services)
    answers["/v1/deliveries"] = (200, {"items": [delivery], "next": None})
    code, out, _ = run("notify", "deliveries", "--status", "dead")
    assert code == 0
    assert "d-1" in out
    assert "dead" in out


def test_a_subscription_may_stand_for_somebody(run: Run, answers: dict[str, Any]) -> None:
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    answers["/.well-known/hallmark.json"] = (200, services)
    made = {"subscription_id": "s-1", "channel": "slack", "address": "https://h/****", "audience": ["service:oncall"]}
    answers["/v1/subscriptions"] = (200, {"items": [made], "next": None})
    _, out, _ = run("notify", "list")
    assert "service:oncall" in out
    sent: list[dict[str, Any]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.extend([json.loads(request.content)] if request.content else [])
        return httpx2.Response(200, json=made if request.content else services)

    with Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(handler)) as one:
        one.subscribe("slack", "https://h/x")
        one.subscribe("slack", "https://h/x", audience=["service:oncall"])
        one.subscribe("slack", "https://h/x", retry_seconds=[5, 60], order="any")
    assert (sent[-1]["retry_seconds"], sent[-1]["order"]) == ([5, 60], "any")
    sent.pop()
    assert [(body["types"], body.get("audience")) for body in sent] == [([], None), ([], ["service:oncall"])]


def test_a_subscription_has_pauses_of_its_own(run: Run, answers: dict[str, Any]) -> None:
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    answers["/.well-known/hallmark.json"] = (200, services)
    answers["/v1/subscriptions"] = (201, {"subscription_id": "s-1", "channel": "webhook", "address": "https://h/x"})
    assert run("notify", "subscribe", "webhook", "https://h/x", "--retry", "5s, 5m,2h", "--order", "any")[0] == 0
    code, _, err = run("notify", "subscribe", "webhook", "https://h/x", "--retry", "5s,soon")
    assert code != 0
    assert "5s,5m,2h" in err
    assert notify._pauses("5s, 5m,2h,1d") == (5, 300, 7200, 86400)
    assert notify._pauses(None) == ()


SERVICES = ("registry", "approval", "audit", "notifier")


def test_a_dry_run_subscribes_to_nothing_and_tells_what_would_have_come(run: Run, answers: dict[str, Any]) -> None:
    answers["/.well-known/hallmark.json"] = (
        200,
        dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r"),
    )
    event = {"event_id": "e", "type": "hallmark.stage.changed.v1", "subject": "default/m/2", "headline": "m: v2 moved"}
    found = {"looked_at": 500, "matched": 14, "failed": 3, "error": "no such key", "since": "2026-11-01T00:00:00Z"}
    answers["/v1/subscriptions/preview"] = (200, found | {"newest": [event | {"time": "2026-11-21T10:00:00Z"}]})
    code, out, _ = run("notify", "subscribe", "email", "a@example.org", "--stage", "Production", "--dry-run")
    assert code == 0
    assert "would have matched 14 of the last 500 events" in out
    assert "no answer for 3 of them" in out
    assert "m: v2 moved" in out
    code, out, _ = run("notify", "subscribe", "email", "a@example.org", "--cel", "true", "--dry-run", "--json")
    assert json.loads(out)["matched"] == 14


def test_a_subscription_shows_what_its_expression_failed_at(run: Run, answers: dict[str, Any]) -> None:
    answers["/.well-known/hallmark.json"] = (
        200,
        dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r"),
    )
    failed = {"count": 7, "detail": "Key not found in map", "event_id": "e", "at": "2026-11-21T10:00:00Z"}
    made = {"subscription_id": "s-1", "channel": "slack", "address": "https://h/****", "filter_errors": failed}
    answers["/v1/subscriptions/s-1"] = (200, made)
    answers["/v1/subscriptions"] = (200, {"items": [made | {"stages": ["Production"]}], "next": None})
    _, out, _ = run("notify", "show", "s-1")
    assert "filter_errors.count" in out
    assert "Key not found in map" in out
    _, out, _ = run("notify", "list")
    assert "Production" in out


def test_an_edit_sends_what_was_named_and_an_empty_text_takes_away(
    run: Run, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def edited(_: Any, subscription_id: str, **changes: Any) -> Subscription:
        sent.append(changes)
        return Subscription(subscription_id=subscription_id, channel="email", address="a@example.org")

    monkeypatch.setattr(Client, "edit_subscription", edited)
    assert run("notify", "edit", "s-1", "--stage", "Staging", "--cel", "")[0] == 0
    assert run("notify", "edit", "s-1", "--for", "", "--model", "m*")[0] == 0
    assert sent == [{"stages": ["Staging"], "cel": ""}, {"audience": [], "model": "m*"}]


def test_silences_and_rules_are_made_and_listed(run: Run, answers: dict[str, Any]) -> None:
    answers["/.well-known/hallmark.json"] = (200, dict.fromkeys(SERVICES, "http://r"))
    times = {"starts_at": "2026-11-21T10:00:00Z", "ends_at": "2026-11-21T12:00:00Z"}
    made = {"silence_id": "q-1", "author": "ana", "comment": "retraining", "state": "active", "model": "m*", **times}
    answers["/v1/silences"] = (201, made)
    code, out, _ = run("notify", "silence", "add", "--for", "2h", "--comment", "retraining", "--model", "m*")
    assert (code, out.strip()) == (0, "silent until 2026-11-21 12:00 UTC: q-1")
    assert run("notify", "silence", "add", "--for", "2 hours", "--comment", "x")[0] == 2
    answers["/v1/silences"] = (200, {"items": [made | {"owner": "ana"}], "next": None})
    _, out, _ = run("notify", "silence", "list")
    assert "retraining" in out
    answers["/v1/silences/q-1/expire"] = (200, made | {"state": "expired"})
    assert "expired: q-1" in run("notify", "silence", "expire", "q-1")[1]
    rule = {"inhibition_id": "i-1", "source_types": ["a"], "target_types": ["b"], "equal": ["model"], "seconds": 60}
    rule |= {"author": "root", "comment": "first"}
    answers["/v1/inhibitions"] = (201, rule)
    made_rule = run(
        "notify", "inhibition", "add", "--source", "a", "--target", "b", "--comment", "first", "--for", "1m"
    )
    assert "made: i-1" in made_rule[1]
    answers["/v1/inhibitions"] = (200, {"items": [rule], "next": None})
    assert json.loads(run("notify", "inhibition", "list", "--json")[1])[0]["seconds"] == 60


def test_deliveries_are_replayed_and_reconciled(run: Run, answers: dict[str, Any]) -> None:
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    answers["/.well-known/hallmark.json"] = (200, services)
    answers["/v1/subscriptions/s-1/replay"] = (200, {"looked_at": 9, "deliveries": 4, "next": None})
    code, out, _ = run("notify", "replay", "failed", "s-1", "--since", "7d", "--dry-run")
    assert (code, out) == (0, "9 events looked at, 4 deliveries\n4 deliveries would be sent\n")
    code, _, err = run("notify", "replay", "failed", "s-1", "--since", "yesterday")
    assert code != 0
    assert "neither like 7d" in err
    answers["/v1/deliveries/d-1/replay"] = (202, {"delivery_id": "d-1"})
    assert run("notify", "resend", "d-1")[1] == "due again: d-1\n"
    answers["/v1/subscriptions/s-1/enable"] = (200, {"subscription_id": "s-1", "channel": "webhook", "address": "x"})
    assert run("notify", "enable", "s-1")[1] == "enabled: s-1\n"
    none: dict[str, Any] = {"events": 3, "checked": 5, "unaccounted": 0, "examples": []}
    answers["/v1/reconciliation"] = (200, none)
    assert run("notify", "reconcile")[:2] == (0, "3 events, 5 deliveries, 0 unaccounted for\n")
    lost = {"subscription_id": "s-1", "event_id": "e-1", "why": "there is no delivery"}
    answers["/v1/reconciliation"] = (200, none | {"unaccounted": 1, "examples": [lost]})
    code, out, _ = run("notify", "reconcile")
    assert code == 1
    assert "there is no delivery" in out


def test_templates_are_published_tried_and_withdrawn(run: Run, answers: dict[str, Any], tmp_path: Path) -> None:
    answers["/.well-known/hallmark.json"] = (200, dict.fromkeys(SERVICES, "http://r"))
    made = {"workspace": "default", "channel": "slack", "types": "hallmark.stage.*", "revision": 3, "current": True}
    made |= {"parts": {"text": "x"}, "published_by": "root", "published_at": "2026-11-21T10:00:00Z"}
    file = tmp_path / "stage.j2"
    file.write_text("{{ notice.headline }}")
    answers["/v1/templates"] = (201, made)
    code, out, _ = run("notify", "template", "publish", "slack", "hallmark.stage.*", str(file))
    assert (code, out.strip()) == (0, "slack hallmark.stage.* revision 3")
    answers["/v1/templates/preview"] = (200, {"event_id": "e", "event_type": "t", "parts": {"text": "m: [b]v2[/b]"}})
    assert run("notify", "template", "preview", "slack", "hallmark.stage.*", str(file))[1].strip() == "m: [b]v2[/b]"
    answers["/v1/templates"] = (200, {"items": [made], "next": None})
    assert "hallmark.stage.*" in run("notify", "template", "list")[1]
    answers["/v1/templates"] = (204, None)
    assert run("notify", "template", "withdraw", "slack", "hallmark.stage.*")[1].strip() == "withdrawn"


def test_names_from_the_server_are_not_markup(run: Run, answers: dict[str, Any]) -> None:
    odd = {"workspace": "default", "model": "a[bold]b", "owner": "[/x]", "description": "[red]d"}
    answers["/v1/models"] = (200, {"items": [odd], "next": None})
    code, out, _ = run("model", "list")
    assert code == 0
    assert "a[bold]b" in out
    assert "[/x]" in out


def test_verify_names_the_bad_entry_and_exits_4(run: Run, tmp_path: Path) -> None:
    export = tmp_path / "log"
    export.write_text("{}\n")
    code, out, _ = run("audit", "verify", str(export), "--key", "not-a-key", "--json")
    assert code == 4
    assert json.loads(out)["verified"] is False


def test_evidence_is_fetched_with_the_proof_from_an_old_checkpoint(
    run: Run, answers: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("origin\n41\nroot\n\n")
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    answers["/.well-known/hallmark.json"] = (200, services)
    answers["/v1/models/fraud/versions/3/evidence"] = (200, {"a": "zip"})
    target = str(tmp_path / "bundle.zip")
    code, out, _ = run("audit", "evidence", "fraud", "3", target, "--since", str(tmp_path / "old"), "--json")
    assert code == 0
    assert json.loads(out) == {"file": target, "bytes": len(Path(target).read_bytes())}
    (tmp_path / "old").write_text("no checkpoint")
    code, _, err = run("audit", "evidence", "fraud", "3", target, "--since", str(tmp_path / "old"))
    assert code == 1
    assert "bad-checkpoint" in err


def test_a_copy_in_tiles_is_verified(run: Run, tmp_path: Path) -> None:
    leaves = [b"entry %d" % n for n in range(5)]
    write_copy(tmp_path / "log", leaves)
    (tmp_path / "keys").write_text("\n".join(vkeys()))
    code, out, _ = run("audit", "verify", str(tmp_path / "log"), "--key", str(tmp_path / "keys"))
    root = root_of([leaf_hash(leaf) for leaf in leaves]).hex()
    assert (code, out) == (0, f"verified: log hallmark.example/log/test of 5 entries; root {root}\n")


def test_a_bad_time_is_explained(run: Run) -> None:
    code, _, err = run("audit", "production", "fraud", "--at", "yesterday")
    assert code == 1
    assert "2026-11-02T14:30:00Z" in err


def commands() -> list[list[str]]:
    nouns = (model, version, stage, request, audit, notify)
    return [
        [str(noun.app.info.name), command.name or getattr(command.callback, "__name__", "")]
        for noun in nouns
        for command in noun.app.registered_commands
    ]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    told = CliRunner().invoke(cli.app if cli.app.registered_groups else cli.build(), [*command, "--help"])
    assert told.exit_code == 0, told.output
    assert f"Example: hallmark {' '.join(command)}" in " ".join(told.output.split())
