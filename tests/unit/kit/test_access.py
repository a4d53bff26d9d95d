"""Who may do what: denied unless a line of the access file says otherwise."""

from datetime import datetime
from pathlib import Path

import pytest

from contracts.access import ALLOWED, Action, Role
from kit.auth import Access, Principal
from kit.problems import Problem

FILE = """
roles:
  - {group: everyone, role: viewer, workspace: default}
  - {group: ml, role: contributor, workspace: default, model: "churn-*"}
  - {group: ml, role: contributor, workspace: "team-?"}
  - {group: reviewers, role: approver}
  - {group: odd, role: auditor, workspace: "[!s]*", model: "?"}
  - {group: all, role: auditor, workspace: "**"}
  - {group: admins, role: admin, workspace: default, model: special}
"""


@pytest.fixture
def access(tmp_path: Path) -> Access:
    (tmp_path / "access.yaml").write_text(FILE)
    return Access.load(tmp_path / "access.yaml")


def principal(*groups: str) -> Principal:
    return Principal("ana", frozenset(groups), "person", 0, "token")


def allowed(access: Access, who: Principal, action: Action, workspace: str, model: str) -> bool:
    try:
        access.require(who, action, workspace, model)
    except Problem as problem:
        assert (problem.status, problem.code) == (403, "forbidden")
        return False
    return True


@pytest.mark.parametrize(
    ("groups", "action", "workspace", "model", "expected"),
    [
        ([], Action.READ, "default", "churn-1", True),
        ([], Action.READ, "other", "churn-1", False),
        ([], Action.REGISTER, "default", "churn-1", False),
        (["ml"], Action.REGISTER, "default", "churn-1", True),
        (["ml"], Action.REGISTER, "default", "fraud", False),
        (["ml"], Action.REGISTER, "default", "Churn-1", False),
        (["ml"], Action.REGISTER, "default", "xchurn-1", False),
        (["ml"], Action.REGISTER, "team-a", "anything", True),
        (["ml"], Action.REGISTER, "team-ab", "anything", False),
        (["ml"], Action.VOTE, "default", "churn-1", False),
        (["reviewers"], Action.VOTE, "anywhere", "anything", True),
        (["reviewers"], Action.REGISTER, "default", "churn-1", False),
        (["ml", "reviewers"], Action.VOTE, "default", "churn-1", True),
        (["unknown"], Action.VOTE, "default", "churn-1", False),
        (["admins"], Action.MANAGE_POLICY, "default", "special", True),
        (["odd"], Action.AUDIT, "default", "m", True),
        (["odd"], Action.AUDIT, "default", "*", False),  # all models, which no pattern stands for but *
        (["odd"], Action.AUDIT, "*", "m", False),
        (["all"], Action.AUDIT, "*", "*", True),
        (["admins"], Action.MANAGE_POLICY, "default", "other", False),
    ],
)
def test_patterns(
    access: Access, groups: list[str], action: Action, workspace: str, model: str, expected: bool
) -> None:
    assert allowed(access, principal(*groups), action, workspace, model) is expected


def test_a_role_on_one_model_is_none_on_the_workspace(access: Access) -> None:
    """Asking for the workspace as a whole (`*`) needs a role on all of its models."""
    assert not allowed(access, principal("ml"), Action.REGISTER, "default", "*")
    assert allowed(access, principal("ml"), Action.REGISTER, "team-a", "*")


def test_the_refusal_says_what_is_missing(access: Access) -> None:
    with pytest.raises(Problem) as caught:
        access.require(principal(), Action.ROLL_BACK, "default", "m")
    assert caught.value.detail == "ana may not roll back in default/m: has viewer; needs one of admin, operator"


def test_nobody_but_admins_may_do_everything() -> None:
    assert ALLOWED[Role.ADMIN] == set(Action)
    assert [role for role in Role if ALLOWED[role] == set(Action)] == [Role.ADMIN]
    assert set(ALLOWED) == set(Role)
    assert Action.VOTE not in ALLOWED[Role.CONTRIBUTOR] | ALLOWED[Role.OPERATOR]
    assert Action.REQUEST not in ALLOWED[Role.APPROVER]
    assert {role for role in Role if Action.BREAK_GLASS in ALLOWED[role]} == {Role.OPERATOR, Role.ADMIN}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "roles: 5",
        "roles: [{group: g, role: king}]",
        "roles: [{group: g}]",
        "roles: [{group: g, role: viewer, model_name: x}]",
        "grants: []",
        "roles: [",
        "roles: !!python/object/apply:os.getcwd []",
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "access.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"access\.yaml"):
        Access.load(path)


def test_grants_are_the_patterns_of_those_lines_that_allow_the_action(access: Access) -> None:
    assert access.grants(principal(), Action.READ) == {("default", "*")}
    assert access.grants(principal("ml"), Action.REGISTER) == {("default", "churn-*"), ("team-?", "*")}
    assert access.grants(principal("ml"), Action.VOTE) == frozenset()
    assert access.grants(principal("reviewers"), Action.VOTE) == {("*", "*")}


def test_a_grant_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its instant, in every question that is asked of it."""
    (tmp_path / "access.yaml").write_text(
        "roles:\n  - {group: visitors, role: auditor, model: 'fraud*', until: 2027-01-31T00:00:00Z}\n"
    )
    access, who = Access.load(tmp_path / "access.yaml"), principal("visitors")
    for at, held in (("2027-01-30T23:59:59Z", True), ("2027-01-31T00:00:00Z", False)):
        monkeypatch.setattr("kit.auth.now", lambda at=at: datetime.fromisoformat(at))
        assert allowed(access, who, Action.AUDIT, "default", "fraud-1") is held
        assert access.patterns(who, Action.AUDIT, "default") == ({"fraud*"} if held else set())
        assert access.grants(who, Action.AUDIT) == ({("*", "fraud*")} if held else set())


@pytest.mark.parametrize("until", ["tomorrow", "2027-01-31", "2027-01-31T00:00:00"])
def test_the_end_of_a_grant_is_an_instant(tmp_path: Path, until: str) -> None:
    (tmp_path / "access.yaml").write_text(f"roles:\n  - {{group: visitors, role: auditor, until: {until}}}\n")
    with pytest.raises(ValueError, match="until"):
        Access.load(tmp_path / "access.yaml")
