from registry.compare import compare


def document(number: int, **content: object) -> dict[str, object]:
    base: dict[str, object] = {
        "metrics": {},
        "parameters": {},
        "signature": {"inputs": []},
        "lineage": {"run": None},
        "environment": {"packages": {}},
        "artifact": {"digest": "a"},
    }
    return {"version": number, "stage": "Staging", "content": base | content}


def test_metrics_show_the_difference_to_the_first() -> None:
    found = compare(
        [document(1, metrics={"auc": 0.5, "only1": 1.0}), document(2, metrics={"auc": 0.75}), document(3, metrics={})]
    )
    assert found["versions"] == [1, 2, 3]
    assert found["metrics"]["auc"] == {"values": [0.5, 0.75, None], "differences": [0.0, 0.25, None]}
    assert found["metrics"]["only1"]["differences"] == [0.0, None, None]


def test_only_what_differs_is_listed() -> None:
    found = compare(
        [
            document(1, parameters={"depth": 3, "same": 1}, environment={"packages": {"onnx": "1"}}),
            document(2, parameters={"depth": 4, "same": 1}, environment={"packages": {"onnx": "2"}}),
        ]
    )
    assert found["parameters"] == {"depth": [3, 4]}
    assert found["environment"] == {"packages.onnx": ["1", "2"]}
    assert found["artifact"] == {}
