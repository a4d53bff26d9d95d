from typing import Any

import pytest

from contracts.model import Artifact, ArtifactFile, Column, Dataset, Lineage, Signature, VersionContent, manifest_digest
from registry.compare import compare

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def document(number: int, **content: Any) -> dict[str, Any]:
    given = {"artifact": Artifact(digest=A, size=1, filename="m.onnx"), **content}
    whole = VersionContent.model_validate(given).model_dump(mode="json")
    return {"version": number, "stage": "Staging", "status": "ready", "aliases": [], "content": whole}


def directory(**digests: str) -> Artifact:
    files = tuple(ArtifactFile(path=path, digest=digest, size=1) for path, digest in sorted(digests.items()))
    return Artifact(digest=manifest_digest(files), size=len(files), filename="m", files=files)


def test_metrics_show_the_difference_to_the_first() -> None:
    found = compare(
        [document(1, metrics={"auc": 0.5, "only1": 1.0}), document(2, metrics={"auc": 0.75}), document(3, metrics={})]
    )
    assert found["versions"] == [1, 2, 3]
    assert found["metrics"]["auc"]["values"] == [0.5, 0.75, None]
    assert found["metrics"]["auc"]["differences"] == [0.0, 0.25, None]
    assert found["metrics"]["only1"]["differences"] == [0.0, None, None]


@pytest.mark.parametrize(("better", "best"), [("higher", 2), ("lower", 1), (None, None)])
def test_the_best_is_named_where_a_direction_is_declared(better: str | None, best: int | None) -> None:
    declared = {"better": {"auc": better}} if better else {}
    found = compare([document(1, metrics={"auc": 0.5}), document(2, metrics={"auc": 0.75}, **declared)])
    assert (found["metrics"]["auc"]["better"], found["metrics"]["auc"]["best"]) == (better, best)


def test_a_tie_has_no_best() -> None:
    same = {"metrics": {"auc": 0.5}, "better": {"auc": "higher"}}
    assert compare([document(1, **same), document(2, **same)])["metrics"]["auc"]["best"] is None


def test_only_what_differs_is_listed() -> None:
    found = compare(
        [
            document(1, parameters={"depth": 3, "same": 1}, environment={"packages": {"onnx": "1"}}),
            document(2, parameters={"depth": 4, "same": 1}, environment={"packages": {"onnx": "2"}}),
        ]
    )
    assert found["parameters"] == {"depth": [3, 4]}
    assert found["environment"] == {"packages.onnx": ["1", "2"]}
    assert found["artifact"] == found["files"] == found["signature"] == found["lineage"] == {}


def test_files_that_changed_are_named() -> None:
    found = compare(
        [document(1, artifact=directory(config=A, weights=B)), document(2, artifact=directory(config=A, weights=C))]
    )
    assert found["files"] == {"weights": [B, C]}


def test_columns_are_compared_by_name() -> None:
    x, y = Column(name="x", dtype="float"), Column(name="y", dtype="float")
    found = compare(
        [
            document(1, signature=Signature(inputs=(x, y))),
            document(2, signature=Signature(inputs=(y, Column(name="x", dtype="double", shape=(None, 3))))),
        ]
    )
    assert found["signature"] == {"inputs.x": ["float", "double[None, 3]"]}


def test_data_sets_are_compared_by_name() -> None:
    found = compare(
        [
            document(1, lineage=Lineage(datasets=(Dataset(name="train", version="1"),))),
            document(2, lineage=Lineage(datasets=(Dataset(name="train", version="2"), Dataset(name="test")))),
        ]
    )
    assert found["lineage"]["datasets.train.version"] == ["1", "2"]
    assert found["lineage"]["datasets.test.name"] == [None, "test"]
