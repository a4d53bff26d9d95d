"""`hallmark delegation`, `member`, `key`, `version revoke`, and the help of every command of approval."""

import json

import pytest
from tests.support.fake_approval import AT, ONE, Run, Service
from typer.testing import CliRunner

from hallmark import cli
from hallmark.commands import decision, delegation, evidence, key, member, policy, request, version


def test_a_date_is_a_whole_day_and_a_time_is_itself(run: Run, service: Service) -> None:
    made = {"delegation_id": "d-1", "delegator": "ben", "delegate": "carla", "starts": AT, "ends": AT}
    service.answers["POST /v1/delegations"] = (201, made)
    grant = ("delegation", "grant", "carla", "--until")
    code, out, _ = run(*grant, "2026-12-31", "--from", "2026-12-24", "--reason", "vacation")
    assert code == 0
    assert "carla may vote for ben" in out
    assert service.sent("POST /v1/delegations") == {
        "delegate": "carla",
        "starts": "2026-12-24T00:00:00+00:00",
        "ends": "2027-01-01T00:00:00+00:00",
        "reason": "vacation",
    }
    run(*grant, "2026-12-31T18:00+01:00", "--for", "bea")
    sent = service.sent("POST /v1/delegations")
    assert (sent["ends"], sent["delegator"]) == ("2026-12-31T18:00:00+01:00", "bea")
    code, _, err = run(*grant, "friday")
    assert code == 2
    assert "2026-12-31" in err


def test_a_date_whose_end_no_clock_shows(run: Run) -> None:
    code, _, err = run("delegation", "grant", "carla", "--until", "9999-12-31")
    assert code == 2
    assert "no later date than 9999-12-30" in err


def test_delegations_are_listed_and_ended(run: Run, service: Service) -> None:
    made = {"delegation_id": "d-1", "delegator": "ben", "delegate": "carla", "starts": AT, "ends": AT}
    ended = {**made, "ended_at": AT, "ended_by": "root"}
    service.answers["GET /v1/delegations"] = (200, {"items": [made, ended], "next": None})
    out = run("delegation", "list")[1]
    assert "over" in out
    assert "ended by root" in out
    assert "of" not in service.asked[-1].url.params
    run("delegation", "list", "--all")
    assert service.asked[-1].url.params["of"] == "all"
    service.answers["DELETE /v1/delegations/d-1"] = (200, ended)
    assert "carla votes for ben no more" in run("delegation", "end", "d-1")[1]


def test_members_are_shown_and_set(run: Run, service: Service) -> None:
    known = {"subject": "a/b", "groups": ["risk"], "person": True, "told_by": "root", "at": AT}
    service.answers["GET /v1/members/a/b"] = (200, known)
    assert "risk" in run("member", "show", "a/b")[1]
    assert service.asked[-1].url.raw_path.startswith(b"/v1/members/a%2Fb")
    service.answers["PUT /v1/members/a/b"] = (200, known)
    assert run("member", "set", "a/b", "--group", "risk", "--group", "reviewers")[0] == 0
    assert service.sent("PUT /v1/members/a/b") == {"groups": ["risk", "reviewers"], "person": True}
    assert run("member", "set", "a/b", "--no-groups", "--service")[0] == 0
    assert service.sent("PUT /v1/members/a/b") == {"groups": [], "person": False}
    assert run("member", "set", "a/b")[0] == 2
    assert run("member", "set", "a/b", "--no-groups", "--group", "x")[0] == 2


def test_a_version_is_revoked_only_when_it_is_meant(run: Run, service: Service) -> None:
    revocation = {
        "revocation_id": "v-1",
        "workspace": "default",
        "model": "fraud",
        "version": 4,
        "digest": ONE,
        "artifact_digest": ONE,
        "revoked_by": "olga",
        "reason": "leak",
        "fallback": 3,
        "revoked_at": AT,
    }
    service.answers["POST /v1/revocations"] = (201, {"revocation": revocation, "jws": "a.b.c"})
    words = ("version", "revoke", "fraud", "4", "--reason", "leak")
    code, _, err = run(*words)
    assert code == 2
    assert "--yes" in err
    assert service.asked == []
    code, out, _ = run(*words, "--fallback", "3", "--yes")
    assert code == 0
    assert "its stage returns to version 3" in out
    body = {"workspace": "default", "model": "fraud", "version": 4, "reason": "leak", "fallback": 3}
    assert service.sent("POST /v1/revocations") == body


def test_keys_are_listed_with_what_they_are_good_for(run: Run, service: Service) -> None:
    keys = {
        "keys": [
            {"kid": "now", "alg": "EdDSA"},
            {"kid": "old", "alg": "EdDSA", "exp": 1_000_000_000},
            {"kid": "next", "alg": "EdDSA", "nbf": 9_000_000_000},
            {"kid": "stolen", "alg": "EdDSA", "revoked": {"revoked_at": 1, "reason": "compromised"}},
        ]
    }
    service.answers["GET /.well-known/jwks.json"] = (200, keys)
    out = run("key", "list")[1]
    found = {line.split()[0]: " ".join(line.split()[1:3]) for line in out.splitlines()[1:]}
    assert found == {
        "now": "signs -",
        "old": "signed before",
        "next": "waits 2255-03-14",
        "stolen": "revoked: compromised",
    }
    assert json.loads(run("key", "list", "--json")[1]) == keys


# -- help ---------------------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    nouns = (request, policy, decision, delegation, member, evidence, key)
    named = [
        [str(noun.app.info.name), command.name or getattr(command.callback, "__name__", "")]
        for noun in nouns
        for command in noun.app.registered_commands
    ]
    return [*named, ["version", "revoke"]]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    told = CliRunner().invoke(cli.build(), [*command, "--help"])
    assert told.exit_code == 0, told.output
    assert f"Example: hallmark {' '.join(command)}" in " ".join(told.output.split())


def test_the_command_is_built_once() -> None:
    assert cli.build() is cli.build()
    assert [one.name for one in version.app.registered_commands].count("revoke") == 1
