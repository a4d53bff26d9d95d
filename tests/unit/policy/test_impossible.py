"""What can never come true is refused, at its line and field."""

import pytest

from policy.document import parse, recorded
from policy.reader import PolicyError

POLICY = """\
kind: PromotionPolicy
metadata: {name: p}
spec:
  match:
    transition: {to: Production}
  request: {expires_after: 2h}
"""


def mistakes(text: str) -> list[tuple[int, str, str]]:
    try:
        parse(text)
    except PolicyError as error:
        return [(m.line, m.field, m.message) for m in error.mistakes]
    return []


@pytest.mark.parametrize(
    ("was", "text", "line", "field", "words"),
    [
        ("{to: Production}", "{to: '@champion'}", 5, "spec.match.transition.to", "no promotion goes to an alias"),
        ("{to: Production}", "{to: '@x'}", 5, "spec.match.transition.to", "{kind: alias, to: '@x'}"),
        ("{to: Production}", "{kind: alias, to: champion}", 5, "spec.match.transition.to", "did you mean '@champion'"),
        ("{to: Production}", "{kind: policy, to: Production}", 5, "spec.match.transition.to", "no stages"),
        ("{to: Production}", "{kind: policy, from: Staging}", 5, "spec.match.transition.from", "no stages"),
        ("  request", "    models: [fraud, a/b]\n  request", 6, "spec.match.models.1", "no name holds '/'"),
        ("  request", "    models: ['a:*']\n  request", 6, "spec.match.models.0", "no name holds ':'"),
        ("  request", "    models: []\n  request", 6, "spec.match.models", "at least 1 item"),
        ("  request", "    workspaces: []\n  request", 6, "spec.match.workspaces", "at least 1 item"),
        ("  request", "    workspaces: [bank, Bank]\n  request", 6, "spec.match.workspaces.1", "no name is like 'B"),
        ("  request", "    workspaces: ['team_*']\n  request", 6, "spec.match.workspaces.0", "lower case"),
        ("  request", "    workspaces: ['*-']\n  request", 6, "spec.match.workspaces.0", "no name is like"),
        ("{to: Production}", "{kind: policy}\n    workspaces: [Bank]", 6, "spec.match.workspaces", "cannot have it"),
        ("{to: Production}", "{kind: policy}\n    models: [Prod*]", 6, "spec.match.models.0", "no name is like 'Prod"),
        ("{to: Production}", "{from: Production, to: Production}", 5, "spec.match.transition.from", "where it is"),
        ("{to: Production}", "{kind: any, from: production, to: Production}", 5, "spec.match.transition.from", "is"),
        ("2h}", "2h}\n  schedule: {min_wait: 2h}", 7, "spec.schedule.min_wait", "always expire first, after 2h"),
        (
            "2h}",
            "2h}\n  escalation:\n    - {after: 1h, do: remind}\n    - {after: 120m, do: remind}",
            9,
            "spec.escalation.1.after",
            "always expire first",
        ),
        (
            "2h}",
            "2h}\n  schedule:\n    freezes: [{name: f, tz: UTC, from: '2020-01-01', to: '2999-01-01'}]",
            8,
            "spec.schedule.freezes.0",
            "more than 400 days",
        ),
        *(
            (
                "2h}",
                f"2h}}\n  gates:\n    - {{id: g, webhook: {{url: '{url}', secret: s}}}}",
                8,
                "spec.gates.0.webhook.url",
                words,
            )
            for url, words in (
                ("https://ana:secret@checks.example", "no user and no password"),
                ("https://ana@checks.example/x", "no user and no password"),
                ("https://[::1/x", "no address"),
                ("https://checks.example:99999/x", "no address"),
                ("https:///x", "names no host"),
            )
        ),
    ],
)
def test_what_can_never_be(was: str, text: str, line: int, field: str, words: str) -> None:
    assert mistakes(POLICY) == []
    ((at, where, told),) = mistakes(POLICY.replace(was, text, 1))
    assert (at, where) == (line, field)
    assert words in told


@pytest.mark.parametrize(
    ("was", "text"),
    [
        ("{to: Production}", "{kind: any, to: '@champion'}"),
        ("{to: Production}", "{kind: alias, to: '@champion'}"),
        ("{to: Production}", "{kind: rollback, to: '@champion'}"),  # the way back from a revoked version
        ("  request", "    models: ['fraud-*', '[a-z]*']\n  request"),
        ("  request", "    workspaces: ['*', 'b?nk', '[a-z]*-1', '[!A-Z]', '?', '*-*', '[B]ank']\n  request"),
        ("{to: Production}", "{kind: policy}\n    models: ['prod*', '?-[0-9]']"),
        ("{to: Production}", "{kind: alias, from: Production, to: '@Production'}"),
        ("2h}", "2h}\n  schedule: {min_wait: 119m}"),
        ("2h}", "2h}\n  schedule: {min_wait: 1h}\n  approvals: {valid_for: 30m}"),  # a vote of the last half hour
        ("2h}", "2h}\n  escalation: [{after: 119m, do: remind}]"),
        ("2h}", "2h}\n  schedule:\n    freezes: [{name: f, tz: UTC, from: '2026-01-01', to: '2026-12-31'}]"),
        ("2h}", "2h}\n  gates:\n    - {id: g, webhook: {url: 'http://10.0.0.1:8080/a@b', secret: s}}"),
    ],
)
def test_what_may_be(was: str, text: str) -> None:
    assert mistakes(POLICY.replace(was, text, 1)) == []


def test_all_of_it_is_told_at_once() -> None:
    text = POLICY.replace("to: Production", "to: '@x'").replace("2h}", "2h}\n  schedule: {min_wait: 3h}")
    assert [field for _, field, _ in mistakes(text)] == ["spec.match.transition.to", "spec.schedule.min_wait"]


def test_what_is_in_force_is_read_though_nobody_may_bring_it_any_more() -> None:
    text = POLICY.replace("{to: Production}", "{from: Production, to: Production}")
    assert mistakes(text)
    assert recorded(text).spec.match.transition.to == "Production"
