"""What payloads refuse: unknown fields, numbers that are none, text that PostgreSQL or a URL cannot hold."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from contracts.lifecycle import parse_subject, stream_of, subject_of
from contracts.model import Artifact, VersionContent, address_digest, external_artifact
from contracts.payload import Line, ModelName, Workspace
from contracts.registry import RegisterModel, RequestTransition

ARTIFACT = {"digest": "sha256:" + "a" * 64, "size": 3, "filename": "m.onnx"}


def content(**fields: Any) -> VersionContent:
    return VersionContent.model_validate_json(json.dumps({"artifact": ARTIFACT, **fields}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ['"metrics": {"accuracy": %s}', '"parameters": {"c": %s}', '"training_seconds": %s'])
def test_numbers_must_be_finite(field: str, number: str) -> None:
    text = f'{{"artifact": {json.dumps(ARTIFACT)}, {field % number}}}'
    with pytest.raises(ValidationError):
        VersionContent.model_validate_json(text)


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_numbers_must_be_finite_in_python_too(metric: float) -> None:
    with pytest.raises(ValidationError):
        VersionContent(artifact=Artifact.model_validate(ARTIFACT), metrics={"accuracy": metric})


@pytest.mark.parametrize("fields", [{"metric": {}}, {"lineage": {"git": "x"}}, {"environment": {"os": "x"}}])
def test_unknown_fields_are_refused_at_any_depth(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        content(**fields)


def test_a_payload_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        content().notes = "x"  # type: ignore[misc]


@pytest.mark.parametrize("stage", ["@champion", "in production", "", None, 3])
def test_a_stage_has_a_name(stage: object) -> None:
    with pytest.raises(ValidationError, match="to_stage"):
        RequestTransition.model_validate({"model": "m", "version": 1, "to_stage": stage, "reason": "r"})


@pytest.mark.parametrize("version", [0, -1, 2**31, "one", 1.5])
def test_a_version_is_a_positive_number(version: object) -> None:
    with pytest.raises(ValidationError, match="version"):
        RequestTransition.model_validate({"model": "m", "version": version, "to_stage": "Staging", "reason": "r"})


@pytest.mark.parametrize("name", ["churn", "Churn Model 2", "modèle", "a.b", "a", "x" * 200])
def test_good_model_names(name: str) -> None:
    assert RegisterModel(model=name).model == name


@pytest.mark.parametrize(
    "name", ["", ".hidden", "..", "a/b", "a:b", " a", "a ", "a\nb", "a\x00", "\x7f", "x" * 201, "a\n"]
)
def test_bad_model_names(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ModelName).validate_python(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a/b", "a" * 64, "a\n"])
def test_bad_workspaces(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Workspace).validate_python(name)


@pytest.mark.parametrize("text", ["", "a\nb", "nul\x00", "x" * 501, "end\n"])
def test_bad_lines(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Line).validate_python(text)


@pytest.mark.parametrize("digest", ["", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 64])
def test_bad_digests(digest: str) -> None:
    with pytest.raises(ValidationError):
        Artifact.model_validate({**ARTIFACT, "digest": digest})


def test_the_digest_binds_all_of_the_content() -> None:
    base = content(metrics={"accuracy": 0.9}, tags={"a": "1", "b": "2"})
    assert base.digest() == content(tags={"b": "2", "a": "1"}, metrics={"accuracy": 0.9}).digest()
    for other in (
        content(metrics={"accuracy": 0.91}, tags={"a": "1", "b": "2"}),
        content(metrics={"accuracy": 0.9}, tags={"a": "1"}),
        content(metrics={"accuracy": 0.9}, tags={"a": "1", "b": "2"}, notes="x"),
    ):
        assert other.digest() != base.digest()


def test_the_digest_never_changes_between_releases() -> None:
    """Signed decisions and the audit log hold it. If this fails, old approvals no longer match their versions."""
    assert content(metrics={"accuracy": 0.9}).digest() == (
        "sha256:6f50423ffb8305ef6d9561fc1a813b204bbbd5265981f32e5c21ffb7b1e2a6ea"
    )


def test_an_external_artifact_is_bound_by_its_address() -> None:
    one, other = (VersionContent(artifact=external_artifact(f"runs:/{n}/model")) for n in (1, 2))
    assert one.digest() != other.digest()
    assert one.artifact.parts() == ()
    assert one.artifact.digest == address_digest("runs:/1/model")


def test_subjects() -> None:
    assert subject_of("default", "churn", 3) == "default/churn/3"
    assert subject_of("default", "churn") == stream_of("default", "churn") == "default/churn"
    assert parse_subject("default/churn/3") == ("default", "churn", 3)
    assert parse_subject("default/churn") == ("default", "churn", None)


@pytest.mark.parametrize("subject", ["", "a", "a/b/c", "a/b/3/4", "a/b/-1", "a/b/"])
def test_bad_subjects(subject: str) -> None:
    with pytest.raises(ValueError, match="is not workspace/model"):
        parse_subject(subject)
