"""The rules of models and versions: names, numbers, tags, and what is decided once."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle, StageRule
from contracts.model import Artifact, Dataset, Evaluation, Finding, Inspection, Lineage, Severity, VersionContent
from contracts.registry import (
    ModelRegistered,
    RegisterModel,
    RegisterVersion,
    Tags,
    VersionRegistered,
    VersionRejected,
    VersionVerified,
    WorkspaceConfigured,
)
from registry import domain
from registry.domain import MAX_TAGS, Model, Refused, Rules, Status, Version

DIGEST = "sha256:" + "a" * 64
ARTIFACT = "sha256:" + "b" * 64
CHURN = Model("default", "churn", exists=True, versions=3, title="churn")
NOBODY = Model("default", "other", title="other")
GONE = replace(CHURN, deleted=True)
EVALUATION = Evaluation(
    dataset=Dataset(name="may"), metrics={"auc": 0.5}, evaluated_at=datetime(2026, 5, 31, tzinfo=UTC)
)
FINDING = Finding(severity=Severity.UNSAFE, code="cve", detail="a hole")


def version(status: Status = Status.READY, number: int = 1) -> Version:
    return Version(number, DIGEST, ARTIFACT, "Development", status=status)


def content(**fields: object) -> VersionContent:
    artifact = Artifact(digest=ARTIFACT, size=1, filename="m.onnx")
    return VersionContent.model_validate({"artifact": artifact, **fields})


def register(model: Model = CHURN, **fields: object) -> list[Any]:
    return list(
        domain.decide_register_version(model, RegisterVersion(model=model.name, content=content(**fields)), "ana")
    )


def code(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        act()
    return refused.value.code


def test_a_model_is_registered_once() -> None:
    command = RegisterModel(model="churn", owner="team")
    [event] = domain.decide_register_model(Model("default", "churn"), command)
    assert isinstance(event, ModelRegistered)
    assert event.owner == "team"
    with pytest.raises(Refused, match="already exists"):
        domain.decide_register_model(CHURN, command)
    with pytest.raises(Refused, match="its name stays reserved"):
        domain.decide_register_model(GONE, command)


def test_versions_are_numbered_from_one_and_make_their_model() -> None:
    made, first = register(Model("default", "churn"))
    assert isinstance(made, ModelRegistered)
    assert isinstance(first, VersionRegistered)
    assert (first.version, first.registered_by, first.digest) == (1, "ana", content().digest())
    [fourth] = register()
    assert isinstance(fourth, VersionRegistered)
    assert fourth.version == 4


def test_a_version_begins_in_the_initial_stage_of_its_workspace() -> None:
    lab = Lifecycle(stages=(StageRule(name="Lab"), StageRule(name="Attic")), initial="Lab", archive="Attic")
    [made] = register(replace(CHURN, rules=Rules(lifecycle=lab)))
    assert made.stage == "Lab"


def test_a_parent_must_exist() -> None:
    assert code(lambda: register(lineage=Lineage(parents=(3, 4)))) == "parent-not-found"
    assert len(register(lineage=Lineage(parents=(3,)))) == 1


def test_the_digest_covers_every_fixed_field() -> None:
    base = content()
    for changed in ({"metrics": {"auc": 0.9}}, {"parameters": {"a": 1}}, {"notes": "x"}, {"tags": {"k": "v"}}):
        assert content(**changed).digest() != base.digest()
    assert content().digest() == base.digest()


def test_nothing_but_restoring_is_done_to_a_deleted_model() -> None:
    v = version()
    acts: list[Callable[[], object]] = [
        lambda: register(GONE),
        lambda: domain.decide_update(GONE, "x", None, None),
        lambda: domain.decide_rename(GONE, "better", NOBODY),
        lambda: domain.decide_delete(GONE, "x", None),
        lambda: domain.decide_evaluate(GONE, v, EVALUATION),
        lambda: domain.decide_tag(GONE, v, frozenset(), Tags(set={"a": "b"})),
        lambda: domain.decide_note(GONE, v, "x"),
        lambda: domain.decide_scan(GONE, v, "s", (FINDING,)),
    ]
    assert {code(act) for act in acts} == {"model-deleted"}
    [restored] = domain.decide_restore(GONE, "mistake")
    assert restored.reason == "mistake"
    assert code(lambda: domain.decide_restore(CHURN, "x")) == "not-deleted"


def test_a_model_in_use_is_not_deleted() -> None:
    assert code(lambda: domain.decide_delete(CHURN, "x", (1, "Production"))) == "model-in-use"
    assert domain.decide_delete(CHURN, "x", None)[0].reason == "x"


def test_a_name_belongs_to_whoever_has_or_had_it() -> None:
    [renamed] = domain.decide_rename(CHURN, "better", NOBODY)
    assert (renamed.model, renamed.former, renamed.name) == ("churn", "churn", "better")
    other = replace(NOBODY, exists=True)
    assert code(lambda: domain.decide_rename(CHURN, "other", other)) == "model-exists"
    assert code(lambda: domain.decide_rename(CHURN, "old", replace(other, deleted=True))) == "model-exists"
    assert code(lambda: domain.decide_rename(CHURN, "churn", CHURN)) == "same-name"
    again = replace(CHURN, title="better")
    [back] = domain.decide_rename(again, "churn", again)
    assert (back.former, back.name) == ("better", "churn")


def test_an_update_changes_something() -> None:
    assert code(lambda: domain.decide_update(CHURN, None, None, None)) == "nothing-to-change"
    [updated] = domain.decide_update(CHURN, "", None, None)
    assert (updated.description, updated.owner) == ("", None), "an empty description is a change"


# -- naming rules -------------------------------------------------------------------------------------------------


def named(rule: str, name: str, message: str = "") -> list[ModelRegistered]:
    model = Model("default", name, rules=Rules(naming=rule, naming_message=message))
    return domain.decide_register_model(model, RegisterModel(model=name))


@pytest.mark.parametrize(
    "rule", ["[", "a{2", "(?=a)b", "(?!a)b", "(?<=a)b", r"(a)\1", "*", "a{1000}{1000}{1000}", "a)|(b"]
)
def test_a_bad_naming_rule_is_refused(rule: str) -> None:
    assert code(lambda: domain.check_naming(rule)) == "bad-naming-rule"


def test_a_name_matches_the_rule_in_full() -> None:
    assert named("[a-z]+", "churn")
    for bad in ("churn1", "1churn", "Churn"):
        assert code(lambda bad=bad: named("[a-z]+", bad)) == "bad-name"  # type: ignore[misc]
    assert named("a|bc", "bc"), "an alternative is matched in full too"
    assert code(lambda: named("a|bc", "abc")) == "bad-name"
    with pytest.raises(Refused, match="team-purpose, please"):
        named("[a-z]+-[a-z]+", "churn", "team-purpose, please")


def test_the_rule_holds_for_models_made_on_the_way_and_for_renames_but_not_for_old_names() -> None:
    rules = Rules(naming="[a-z]+")
    assert code(lambda: register(Model("default", "M1", rules=rules))) == "bad-name"
    assert code(lambda: domain.decide_rename(replace(CHURN, rules=rules), "M1", NOBODY)) == "bad-name"
    assert len(register(replace(CHURN, name="M1", rules=rules))) == 1


@pytest.mark.parametrize("rule", ["(a+)+$", "(a|a)*b", "(a*)*b", "(x+x+)+y"])
def test_no_rule_can_hang_the_service(rule: str) -> None:
    """Backtracking would take longer than the universe has had; a linear engine, no time at all."""
    started = time.perf_counter()
    for letter in "ax":
        with pytest.raises(Refused):
            named(rule, letter * 199 + "!")
    assert time.perf_counter() - started < 2


def configured(**fields: Any) -> WorkspaceConfigured:
    return WorkspaceConfigured(**({"workspace": "default", "lifecycle": DEFAULT_LIFECYCLE} | fields))


def test_a_workspace_is_configured_unless_it_would_lose_versions() -> None:
    good = configured(naming="[a-z]+", protected_aliases=("champion",))
    assert domain.decide_configure(good, {"Staging": 2}) == [good]
    assert domain.decide_configure(good, {"QA": 0}) == [good]
    with pytest.raises(Refused, match="2 versions are in QA"):
        domain.decide_configure(good, {"QA": 2, "Staging": 1})
    assert code(lambda: domain.decide_configure(configured(naming="["), {})) == "bad-naming-rule"
    assert code(lambda: domain.decide_configure(configured(naming="\x00"), {})) == "bad-naming-rule"
    # Spelled otherwise it is another stage: versions keep the spelling they came in under.
    assert code(lambda: domain.decide_configure(good, {"production": 1})) == "stage-in-use"


# -- tags ---------------------------------------------------------------------------------------------------------


def many(count: int, prefix: str = "t") -> dict[str, str]:
    return {f"{prefix}{n}": "v" for n in range(count)}


def test_tags_have_a_limit_everywhere() -> None:
    full = frozenset(many(MAX_TAGS))
    model, v = replace(CHURN, tags=full), version()
    over, swap, same = Tags(set={"one": "x"}), Tags(set={"one": "x"}, remove=("t0",)), Tags(set={"t0": "new"})
    acts: list[Callable[[], object]] = [
        lambda: domain.decide_update(model, None, None, over),
        lambda: domain.decide_tag(CHURN, v, full, over),
        lambda: domain.decide_register_model(NOBODY, RegisterModel(model="other", tags=many(MAX_TAGS + 1))),
        lambda: register(tags=many(MAX_TAGS + 1)),
    ]
    assert {code(act) for act in acts} == {"too-many-tags"}
    for tags in (swap, same):
        assert domain.decide_update(model, None, None, tags)
        assert domain.decide_tag(CHURN, v, full, tags)
    assert register(tags=many(MAX_TAGS))


# -- verification and what is appended ----------------------------------------------------------------------------


def test_verification_is_decided_once() -> None:
    inspection = Inspection(scanner="s", format="onnx")
    [verified] = domain.decide_verified(CHURN, version(Status.PENDING), inspection, None)
    assert isinstance(verified, VersionVerified)
    assert (verified.artifact_digest, verified.inspection) == (ARTIFACT, inspection)
    [rejected] = domain.decide_verified(CHURN, version(Status.PENDING), inspection, ("bad", "because", "a.bin"))
    assert isinstance(rejected, VersionRejected)
    assert (rejected.code, rejected.detail, rejected.file) == ("bad", "because", "a.bin")
    for status in (Status.READY, Status.QUARANTINED, Status.REJECTED):
        for refusal in (None, ("bad", "because", None)):
            assert domain.decide_verified(CHURN, version(status), inspection, refusal) == []


def test_a_version_of_a_deleted_model_is_verified_all_the_same() -> None:
    assert domain.decide_verified(GONE, version(Status.PENDING), Inspection(scanner="s"), None)


def test_a_rejected_version_takes_no_evaluations_and_no_tags() -> None:
    v = version(Status.REJECTED)
    assert code(lambda: domain.decide_evaluate(CHURN, v, EVALUATION)) == "version-rejected"
    assert code(lambda: domain.decide_tag(CHURN, v, frozenset(), Tags(set={"a": "b"}))) == "version-rejected"
    assert domain.decide_note(CHURN, v, "why it was rejected")[0].text == "why it was rejected"


def test_an_unsafe_scan_is_not_lost_to_a_verification_that_runs() -> None:
    """Verified later, the version would be `ready`, whatever the scan has said."""
    assert code(lambda: domain.decide_scan(CHURN, version(Status.PENDING), "grype", (FINDING,))) == "version-not-ready"
    for status in (Status.READY, Status.QUARANTINED, Status.REJECTED):
        assert domain.decide_scan(CHURN, version(status), "grype", (FINDING,))[0].findings == (FINDING,)
