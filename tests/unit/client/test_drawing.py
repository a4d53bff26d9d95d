"""What is drawn for people: comparisons in Markdown, time in stages, what a decision rests on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy
import pytest
from markdown_it import MarkdownIt
from tests.support.fake_approval import Run, Service

import hallmark
from contracts.canonical import canonical_json
from hallmark.audit_results import Stay
from hallmark.comparison import markdown
from hallmark.deciding import input_digest
from hallmark.lanes import lane
from hallmark.output import duration
from hallmark.results import Pin

COMPARED: dict[str, Any] = {
    "versions": [3, 4],
    "stages": ["Production", "Staging"],
    "statuses": ["ready", "ready"],
    "aliases": [[], []],
    "metrics": {
        "auc": {"values": [0.9, 0.91], "differences": [0, 0.01], "better": "higher", "best": 4},
        "rows": {"values": [None, 5.0], "differences": [None, None], "better": None, "best": None},
    },
    "parameters": {"note": ["a|b", "<script>alert(1)</script> @team"]},
    "lineage": {"git_commit": ["a" * 40, "b" * 40]},
}
T0 = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def service() -> Service:
    services = dict.fromkeys(("registry", "approval", "audit", "notifier"), "http://r")
    return Service({"GET /.well-known/hallmark.json": (200, services)})


def sent(service: Service) -> Any:
    return json.loads(service.asked[-1].content)


def test_a_comparison_in_markdown_is_a_table_and_nobodys_text_is_markup(run: Run, service: Service) -> None:
    service.answers["GET /v1/models/fraud/compare"] = (200, COMPARED)
    code, told, _ = run("version", "compare", "fraud", "3", "4", "--markdown")
    assert (code, told) == (0, markdown("fraud", COMPARED))
    html = MarkdownIt("commonmark").enable("table").render(told)
    assert "<th>v3 (Production)</th>" in html
    assert "<strong>0.91 (+0.0100)</strong>" in html
    assert html.count("<td>") == 2 * 3 + 2 * 3
    assert "<script" not in html
    assert "a|b" in html
    assert "@team" not in told, "nobody is mentioned"


def stay(version: int, since: int, until: int | None) -> Stay:
    at = None if until is None else T0 + timedelta(days=until)
    return Stay(version=version, since=T0 + timedelta(days=since), until=at)


def test_a_lane_shows_each_version_in_its_place() -> None:
    end = T0 + timedelta(days=10)
    assert lane([stay(1, 0, 4), stay(2, 4, None)], T0, end, 20) == "v1------v2----------"
    assert lane([stay(1, 2, 4)], T0, end, 10) == "··v1······"
    assert lane([stay(12, 0, 0), stay(13, 0, None)], T0, end, 10) == "v13-------"
    assert lane([stay(1, 0, None), stay(200, 9, 9)], T0, end, 10) == "v1--------", "there is no room for its name"


def test_time_in_stages_is_drawn_and_listed(run: Run, service: Service) -> None:
    stages = [{"name": "Development"}, {"name": "Production"}]
    rules = {"workspace": "default", "lifecycle": {"stages": stages, "initial": "Development"}}
    service.answers["GET /v1/workspaces/default"] = (200, rules)
    item = {"version": 2, "since": "2026-11-01T00:00:00Z", "until": None, "requested_by": "ana", "reason": "better"}
    service.answers["GET /v1/models/fraud/history"] = (200, {"items": [item], "next": None})
    code, told, _ = run("model", "timeline", "fraud")
    assert code == 0
    assert "Production  v2---" in told
    assert "2026-11-01 00:00:00" in told
    assert json.loads(run("model", "timeline", "fraud", "--json")[1])["Production"][0]["version"] == 2


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59.6, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (7, "7 s")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


PIN = Pin.model_validate(
    {
        "workspace": "w",
        "model": "fraud",
        "version": 4,
        "stage": "Production",
        "digest": "sha256:" + "a" * 64,
        "artifact": {"digest": "sha256:" + "b" * 64, "size": 1, "filename": "m"},
        "pin": "aaaa.bbbb.cccc",
    }
)


def test_a_decision_names_its_model_and_not_its_input() -> None:
    rows = numpy.array([[1.5, 2.0]])
    record = hallmark.decision(PIN, {"x": rows, "who": "ana"}, score=0.9)
    assert record["input_digest"] == input_digest(canonical_json({"who": "ana", "x": [[1.5, 2.0]]}))
    assert (record["version"], record["pin"], record["score"]) == (4, "aaaa.bbbb.cccc", 0.9)
    assert "ana" not in json.dumps(record)
    with pytest.raises(ValueError, match="JSON"):
        hallmark.decision(PIN, [float("nan")])


FACT = {"index": 7, "type": "hallmark.version.registered.v1", "at": "2026-11-01T00:00:00Z", "actor": "ana"}
CONTENT = {
    "metrics": {"auc": 0.91},
    "lineage": {"datasets": [{"name": "may.csv", "version": "md5:aa"}], "git_commit": "c0ffee"},
    "artifact": {"digest": "sha256:bb"},
}
EXPLAINED = {
    "workspace": "w",
    "model": "fraud",
    "target": "Production",
    "at": "2026-11-02T00:00:00Z",
    "version": 4,
    "pin": {"agrees": True},
    "stay": {"version": 4, "requested_by": "ana", "approved_by": [{"name": "ben"}], "reason": "better"},
    "registration": [{**FACT, "summary": "registered version 4", "data": {"content": CONTENT}}],
    "votes": [{**FACT, "index": 9, "actor": "ben", "summary": "ben approved"}],
}


@pytest.mark.parametrize("given", ["pin", "record", "file", "file of the pin"])
def test_a_logged_decision_is_explained(run: Run, service: Service, tmp_path: Path, given: str) -> None:
    record = json.dumps(hallmark.decision(PIN, b"x"))
    (tmp_path / "record").write_text(record)
    (tmp_path / "pin").write_text("aaaa.bbbb.cccc\n")
    known = {"pin": "aaaa.bbbb.cccc", "record": record, "file": str(tmp_path / "record")}
    service.answers["GET /v1/explain"] = (200, EXPLAINED)
    code, told, _ = run("audit", "explain", known.get(given, str(tmp_path / "pin")))
    assert code == 0
    for text in ("fraud version 4", "the log says the same", "may.csv md5:aa", "c0ffee", "auc 0.91", "ben approved"):
        assert text in told
    assert service.asked[-1].url.params["pin"] == "aaaa.bbbb.cccc"


def test_what_holds_no_pin_is_told_before_anything_is_asked(run: Run, service: Service) -> None:
    for said in ("nonsense", '{"pin": null}', "{", "[1]"):
        code, _, err = run("audit", "explain", said)
        assert (code, "hallmark.decision" in err) == (1, True)
    assert run("audit", "explain")[0] == 2
    assert run("audit", "explain", "a.b.c", "--model", "m")[0] == 2
    assert service.asked == []


def test_holds_and_retention(run: Run, service: Service, tmp_path: Path) -> None:
    hold = {"id": "h1", "workspace": "default", "model": "fraud", "placed_by": "aud", "reason": "r", "at": str(T0)}
    service.answers["POST /v1/retention/holds"] = (200, hold)
    service.answers["POST /v1/retention/holds/h1/release"] = (200, hold)
    service.answers["GET /v1/retention/holds"] = (200, {"items": [hold, {**hold, "workspace": None, "model": None}]})
    assert "default/fraud" in run("audit", "hold", "place", "--model", "fraud", "--reason", "case")[1]
    assert sent(service) == {"workspace": "default", "model": "fraud", "reason": "case"}
    run("audit", "hold", "place", "--everything", "--reason", "case", "--since", "2026-11-01")
    assert sent(service) == {"reason": "case", "since": T0.isoformat()}
    assert run("audit", "hold", "place", "--everything", "--model", "m", "--reason", "r")[0] == 2
    assert "everything" in run("audit", "hold", "list")[1]
    assert "released" in run("audit", "hold", "release", "h1", "--reason", "over")[1]
    file = tmp_path / "retention.yaml"
    for bad in ("", "rules: 1", "- a", "rules: [1]", "rules: [a"):
        file.write_text(bad)
        assert run("audit", "retention", "set", str(file))[0] == 1
    rules = [{"topic": "*", "type": "*", "days": 3_650}]
    file.write_text(json.dumps({"rules": rules}))
    service.answers["PUT /v1/retention/policy"] = (200, {"rules": rules})
    assert "3650" in run("audit", "retention", "set", str(file), "--reason", "law")[1]
    assert sent(service) == {"rules": rules, "reason": "law"}


def test_a_registration_may_be_tried_without_sending_anything(run: Run, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "m.bin"
    file.write_bytes(b"abc")
    code, told, _ = run("version", "register", "fraud", str(file), "--metric", "auc=0.9", "--dry-run", "--json")
    assert (code, json.loads(told)["content"]["artifact"]["size"], service.asked) == (0, 3, [])


def test_the_log_is_asked_as_it_knew_then(run: Run, service: Service) -> None:
    service.answers["GET /v1/models/fraud/production"] = (200, {"version": None, "stage": "Staging"})
    code, told, _ = run("audit", "production", "fraud", "--stage", "Staging", "--known-at", "2026-11-01")
    assert (code, "nothing was in Staging" in told) == (0, True)
    asked = dict(service.asked[-1].url.params)
    assert (asked["stage"], asked["known_at"]) == ("Staging", T0.isoformat())
    item = {"model": "fraud", "version": 4, "registered_at": str(T0), "at": str(T0), "seconds": 3_661.0}
    service.answers["GET /v1/reports/lead-times"] = (200, {"items": [item], "next": None})
    assert "1 h 1 min" in run("audit", "lead-times", "--model", "fraud")[1]
