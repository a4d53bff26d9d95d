"""Questions to the audit log on the command line."""

import json

import httpx2
import pytest
from tests.support.fake_approval import Run, Service

HELD = {
    "target": "Production",
    "version": 2,
    "since": "2026-11-20T12:00:00Z",
    "requested_by": "ana",
    "reason": "better",
    "index": 6,
}
CHANGES = [
    {"version": 2, "alias": None, "before": None, "after": HELD, "index": 6},
    {"version": None, "alias": "champion", "before": {**HELD, "target": "@champion"}, "after": None, "index": 7},
]
EYES = {
    "index": 6,
    "at": "2026-11-20T12:00:00Z",
    "model": "fraud",
    "version": 2,
    "target": "Production",
    "finding": "violation",
    "requested_by": "ana",
    "approvers": ["ben"],
    "waived_by": ["ana"],
    "broken_by": None,
}


@pytest.fixture
def service() -> Service:
    return Service()


def asked(service: Service, path: str) -> httpx2.QueryParams:
    [one] = [request for request in service.asked if request.url.path == path]
    return one.url.params


def test_changes_between_two_moments(run: Run, service: Service) -> None:
    service.answers["GET /v1/changes"] = (200, {"items": CHANGES, "next": None})
    code, out, _ = run("audit", "changes", "fraud", "--since", "2026-11-01", "--until", "2026-11-20T12:00:00+02:00")
    assert code == 0
    for text in ("version 2", "nothing", "Production", "@champion", "ana: better"):
        assert text in out
    params = asked(service, "/v1/changes")
    assert (params["model"], params["since"], params["until"]) == (
        "fraud",
        "2026-11-01T00:00:00+00:00",
        "2026-11-20T10:00:00+00:00",
    )
    code, out, _ = run("audit", "changes", "fraud", "--since", "2026-11-01", "--json")
    assert [item["index"] for item in json.loads(out)] == [6, 7]
    assert run("audit", "changes", "fraud", "--since", "yesterday")[0] == 1


def test_whose_eyes_saw_it(run: Run, service: Service) -> None:
    service.answers["GET /v1/reports/four-eyes"] = (200, {"items": [EYES], "next": None})
    code, out, _ = run("audit", "four-eyes", "--finding", "violation", "--model", "fraud")
    assert code == 0
    for text in ("fraud v2", "violation", "ben, ana (waiver)"):
        assert text in out
    params = asked(service, "/v1/reports/four-eyes")
    assert (params["model"], params["finding"]) == ("fraud", "violation")


SAVED = {
    "owner": "aud",
    "name": "glass",
    "filters": {"workspace": "default", "type": ["hallmark.glass.*"]},
    "q": "down",
    "every": 60,
    "alert_above": 0,
    "groups": ["auditors"],
    "saved_at": "2026-11-20T12:00:00Z",
    "next": 7,
    "due_at": "2026-11-20T12:01:00Z",
    "ran_at": None,
    "matches": None,
}


def test_saved_searches(run: Run, service: Service) -> None:
    service.answers["PUT /v1/searches/glass"] = (201, SAVED)
    words = ("--type", "hallmark.glass.*", "--filter", "actor=olga", "--every", "60", "--alert-above", "0")
    code, out, _ = run("audit", "search", "save", "glass", *words)
    assert (code, out.strip()) == (0, "saved: glass, from entry 7 on")
    [put] = [request for request in service.asked if request.method == "PUT"]
    assert json.loads(put.content) == {
        "filters": {"workspace": "default", "actor": "olga", "type": ["hallmark.glass.*"]},
        "every": 60.0,
        "alert_above": 0,
    }
    service.answers["GET /v1/searches"] = (200, {"items": [SAVED], "next": None})
    code, out, _ = run("audit", "search", "list", "--json")
    assert [(item["name"], item["next"]) for item in json.loads(out)] == [("glass", 7)]
    code, out, _ = run("audit", "search", "list")
    assert "hallmark.glass.*" in "".join(out.split())
    ran = {"first": 7, "until": 40, "matches": 3, "indexes": [8, 9], "alerted": True}
    service.answers["POST /v1/searches/glass/run"] = (200, ran)
    code, out, _ = run("audit", "search", "run", "glass")
    assert " ".join(out.split()) == "3 of the entries 7 to 39: 8, 9, ...; you are alerted"
    service.answers["POST /v1/searches/glass/run"] = (200, {**ran, "first": 40, "matches": 0, "indexes": []})
    assert "nothing new" in run("audit", "search", "run", "glass")[1]
    service.answers["DELETE /v1/searches/glass"] = (204, None)
    assert run("audit", "search", "remove", "glass")[0] == 0
    assert run("audit", "search", "save", "glass", "--filter", "actor")[0] == 2
