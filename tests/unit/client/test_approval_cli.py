"""`hallmark request`: what the commands send, what they print, and how they end."""

import json

import httpx2
import pytest
from tests.support.fake_approval import AT, CHANGE, ID, ONE, POLICY, REQUEST, TWO, VOTE, Run, Service, problem


def test_the_list_asks_for_a_view_of_all_workspaces_and_says_what_each_waits_for(run: Run, service: Service) -> None:
    service.answers["GET /v1/requests"] = (200, {"items": [REQUEST, CHANGE], "next": None})
    code, out, err = run("request", "list", "--needs-me", "--status", "open", "--model", "fraud")
    assert (code, err) == (0, "")
    assert dict(service.asked[-1].url.params) == {
        "view": "needs-me",
        "status": "open",
        "model": "fraud",
        "limit": "50",
    }
    assert "fraud version 3" in out
    assert "policy production revision 3" in out
    assert "production/review: 0 of 2" in out


@pytest.mark.parametrize(
    "words", [("request", "list", "--workspace", "team"), ("--workspace", "team", "request", "list")]
)
def test_a_workspace_that_is_named_narrows_the_list(run: Run, service: Service, words: tuple[str, ...]) -> None:
    service.answers["GET /v1/requests"] = (200, {"items": [], "next": None})
    assert run(*words)[0] == 0
    assert service.asked[-1].url.params["workspace"] == "team"


def test_a_workspace_of_the_environment_does_not_hide_what_waits_elsewhere(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALLMARK_WORKSPACE", "team")
    service.answers["GET /v1/requests"] = (200, {"items": [], "next": None})
    run("request", "list", "--asked")
    assert "workspace" not in service.asked[-1].url.params


def test_only_as_many_are_listed_as_wanted_and_the_rest_is_told(run: Run, service: Service) -> None:
    def answer(asked: httpx2.Request) -> httpx2.Response:
        count, first = int(asked.url.params["limit"]), int(asked.url.params.get("after", 0))
        items = [{**REQUEST, "request_id": str(n)} for n in range(first + 1, min(first + count, 450) + 1)]
        more = len(items) == count and items[-1]["request_id"] != "450"
        return httpx2.Response(200, json={"items": items, "next": items[-1]["request_id"] if more else None})

    service.answers["GET /v1/requests"] = answer
    code, out, err = run("request", "list", "--limit", "2", "--json")
    assert (code, [one["request_id"] for one in json.loads(out)]) == (0, ["1", "2"])
    assert "--after 2" in err
    assert [
        one["request_id"] for one in json.loads(run("request", "list", "--limit", "1", "--after", "2", "--json")[1])
    ] == ["3"]
    code, out, err = run("request", "list", "--limit", "0", "--json")
    assert (len(json.loads(out)), err) == (450, "")


def test_two_views_at_once_are_wrong_usage(run: Run) -> None:
    code, _, err = run("request", "list", "--needs-me", "--asked")
    assert code == 2
    assert "choose one" in err


def test_show_tells_all_of_a_request(run: Run, service: Service) -> None:
    full = {
        **REQUEST,
        "votes": [VOTE],
        "past_votes": [{"vote": {**VOTE, "voter": "cid"}, "why": "the request has changed since"}],
        "refusals": [{"voter": "ana", "choice": "approve", "code": "own-request", "detail": "ana asked for this"}],
        "waivers": [{"gate": "production/latency", "by": "lea", "reason": "batch only", "at": AT}],
        "past_waivers": [{"waiver": {"gate": "production/bias", "by": "lou", "at": AT}, "why": "a newer baseline"}],
        "past_emergencies": [{"emergency": {"by": "otto", "reason": "an outage", "at": AT}, "why": "another policy"}],
        "comments": [{"author": "dan", "text": "[bold]why[/bold]?", "at": AT}],
        "escalations": [{"step": "production/1", "action": "add_approvers", "to": ["group:leads"], "rule": "review"}],
        "emergency": {
            "by": "olga",
            "reason": "losses",
            "skips": ["approvals"],
            "until": AT,
            "review": ["risk"],
            "review_count": 2,
            "review_by": AT,
        },
        "reviews": [{"reviewer": "rita", "justified": False, "comment": "no need", "at": AT}],
        "you": {"may_vote": False, "code": "own-request", "detail": "ana asked for this", "on_behalf_of": ["bea"]},
    }
    service.answers[f"GET /v1/requests/{ID}"] = (200, full)
    code, out, _ = run("request", "show", ID)
    assert code == 0
    for text in (
        "fraud version 3: Staging -> Production: open",
        "waits for people: production/review: 0 of 2",
        "asked by ana at 2026-03-04 05:06:07 UTC: beats v2",
        "change_ticket: CHG0000042",
        "production (revision 2)",
        "0 of 2",
        "ben for bea",
        "[fine]",
        "the request has changed since",
        "ana asked for this [own-request]",
        "batch only",
        "production/bias",
        "a newer baseline",
        "an outage",
        "another policy",
        "[bold]why[/bold]?",
        "group:leads",
        "olga broke the glass: losses",
        "unjustified",
        f"votes bind to {ONE}",
        "You may not vote: ana asked for this",
        "You may vote for bea",
    ):
        assert text in out, text


def test_show_of_a_change_of_a_policy_tells_what_it_changes(run: Run, service: Service) -> None:
    service.answers[f"GET /v1/requests/{ID}"] = (200, CHANGE)
    service.answers["GET /v1/policies"] = (200, {"items": [{**POLICY, "revision": 3}, POLICY], "next": None})
    code, out, _ = run("request", "show", ID)
    assert code == 0
    assert "-metadata: {name: production}\n+metadata: {name: production, owner: risk}" in out


def test_watch_tells_each_change_and_ends_with_the_request(run: Run, service: Service) -> None:
    voted = {**REQUEST, "votes": [VOTE], "waits_for": "production/review: 1 of 2"}
    ended = {**REQUEST, "status": "rejected", "phase": "decided", "waits_for": ""}
    service.answers[f"GET /v1/requests/{ID}"] = [(200, REQUEST), (200, voted), (200, ended)]
    code, out, _ = run("request", "watch", ID)
    assert code == 4
    assert [line for line in out.splitlines() if "waits for" not in line] == [
        "fraud version 3: Staging -> Production: open",
        "fraud version 3: Staging -> Production: open",
        "fraud version 3: Staging -> Production: rejected",
    ]


@pytest.mark.parametrize(("status", "code"), [("approved", 0), ("open", 3), ("expired", 4), ("cancelled", 4)])
def test_watch_ends_with_a_code_for_scripts(run: Run, service: Service, status: str, code: int) -> None:
    service.answers[f"GET /v1/requests/{ID}"] = (200, {**REQUEST, "status": status})
    found, out, _ = run("request", "watch", ID, "--wait", "0", "--json")
    assert (found, json.loads(out)["status"]) == (code, status)


# -- acting on requests -------------------------------------------------------------------------------------------


def test_a_vote_binds_to_the_digest_that_was_shown(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/votes"] = (200, {**REQUEST, "votes": [VOTE]})
    run("request", "show", ID)
    code, out, _ = run("request", "approve", ID, "--comment", "sound", "--rule", "production/review", "--for", "bea")
    assert code == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes") == {
        "choice": "approve",
        "comment": "sound",
        "request_digest": ONE,
        "rule": "production/review",
        "on_behalf_of": "bea",
    }
    assert "your vote to approve is recorded" in out


@pytest.mark.parametrize("act", [("approve", ID), ("waive", ID, "production/auc", "--reason", "r")])
def test_what_changed_after_it_was_shown_is_not_signed(run: Run, service: Service, act: tuple[str, ...]) -> None:
    run("request", "show", ID)
    service.answers[f"GET /v1/requests/{ID}"] = (200, {**REQUEST, "request_digest": TWO})
    code, _, err = run("request", *act)
    assert code == 4
    assert "request-changed" in err
    assert f"hallmark request show {ID}" in " ".join(err.split())
    assert service.asked[-1].method == "GET"
    service.answers[f"POST /v1/requests/{ID}/votes"] = (200, REQUEST)
    run("request", "show", ID)
    assert run("request", "approve", ID)[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes")["request_digest"] == TWO


def test_the_name_of_the_policy_may_be_left_out_where_it_is_clear(run: Run, service: Service) -> None:
    for act in ("votes", "waivers"):
        service.answers[f"POST /v1/requests/{ID}/{act}"] = (200, REQUEST)
    assert run("request", "approve", ID, "--rule", "review")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes")["rule"] == "production/review"
    assert run("request", "waive", ID, "auc", "--reason", "r")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/waivers")["gate"] == "production/auc"
    for words in (("approve", ID, "--rule", "risk"), ("waive", ID, "latency", "--reason", "r")):
        code, _, err = run("request", *words)
        assert code == 2
        assert "production/" in err


def test_a_digest_that_is_given_is_what_is_signed(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/votes"] = (409, problem("request-changed", "read it again"))
    code, _, err = run("request", "reject", ID, "--comment", "leak", "--digest", TWO)
    assert code == 4
    assert "read it again" in err
    assert service.sent(f"POST /v1/requests/{ID}/votes")["request_digest"] == TWO


def test_a_rejection_has_to_say_why(run: Run) -> None:
    code, _, err = run("request", "reject", ID)
    assert code == 2
    assert "--comment" in err


def test_a_vote_is_withdrawn_with_a_reason(run: Run, service: Service) -> None:
    service.answers[f"DELETE /v1/requests/{ID}/votes"] = (200, REQUEST)
    assert run("request", "withdraw-vote", ID, "--reason", "new data")[0] == 0
    assert service.asked[-1].url.params["reason"] == "new data"


def test_comments_waivers_and_reviews_are_sent(run: Run, service: Service) -> None:
    for act in ("comments", "waivers", "reviews"):
        service.answers[f"POST /v1/requests/{ID}/{act}"] = (200, REQUEST)
    assert run("request", "comment", ID, "what of June?")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/comments") == {"text": "what of June?"}
    assert run("request", "waive", ID, "production/auc", "--reason", "batch only")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/waivers") == {
        "gate": "production/auc",
        "reason": "batch only",
        "request_digest": ONE,
    }
    assert run("request", "review", ID, "--unjustified", "--comment", "no need")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/reviews") == {"justified": False, "comment": "no need"}
    assert run("request", "review", ID, "--comment", "which?")[0] == 2


def test_the_glass_is_broken_only_when_it_is_meant(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/break-glass"] = (200, {**REQUEST, "status": "approved"})
    code, _, err = run("request", "break-glass", ID, "--reason", "losses")
    assert code == 2
    assert "--yes" in err
    assert [one.method for one in service.asked] == ["GET"]
    assert run("request", "break-glass", ID, "--reason", "losses", "--yes")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/break-glass") == {"reason": "losses"}


def test_a_transition_is_not_withdrawn_but_cancelled(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/withdraw"] = (409, problem("not-a-policy", "cancel it in the registry"))
    code, _, err = run("request", "withdraw", ID)
    assert code == 4
    assert f"hallmark stage cancel {ID}" in " ".join(err.split())
    service.answers[f"POST /v1/requests/{ID}/withdraw"] = (200, {**CHANGE, "status": "cancelled"})
    assert "cancelled" in run("request", "withdraw", ID)[1]


def test_the_manifest_is_printed_as_it_came(run: Run, service: Service) -> None:
    text = "Signatures\n  ben: approve [x]\n"
    service.answers[f"GET /v1/requests/{ID}/manifest"] = (200, text)
    assert run("request", "manifest", ID)[:2] == (0, text)
    assert json.loads(run("request", "manifest", ID, "--json")[1])["manifest"] == text
