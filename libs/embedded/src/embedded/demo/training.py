"""Real models on real data: breast cancer diagnoses (569 biopsies, 30 measurements), from scikit-learn.

Run as `python -m embedded.demo.training DIR`: a process of its own, so that it works while the stack starts.
Data: W. Wolberg, O. Mangasarian, W. Street, UCI Machine Learning Repository, 1995.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hallmark import capture

HELD_OUT = 0.3
SEED = 42


@dataclass(frozen=True)
class Trained:
    """One exported model, measured on rows it has never seen. `file` is the ONNX file."""

    name: str
    about: str
    file: str
    metrics: dict[str, float]
    parameters: dict[str, Any]
    seconds: float
    rows_trained: int
    rows_held_out: int
    dataset_file: str
    environment: dict[str, Any]


def train(directory: Path) -> None:
    """Writes `<name>.onnx` for each model, `held_out.npz`, and last `trained.json`."""
    import numpy
    import sklearn.datasets
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    source = Path(sklearn.datasets.__file__).parent / "data" / "breast_cancer.csv"
    data = sklearn.datasets.load_breast_cancer()
    rows = data.data.astype("float32")
    rows_train, rows_test, truth_train, truth_test = train_test_split(
        rows, data.target, test_size=HELD_OUT, random_state=SEED, stratify=data.target
    )
    directory.mkdir(parents=True, exist_ok=True)
    numpy.savez(directory / "held_out.npz", rows=rows_test, truth=truth_test)
    two = ColumnTransformer([("two", "passthrough", [4, 8])])  # mean smoothness and mean symmetry
    candidates: list[tuple[str, str, Any, dict[str, Any]]] = [
        (
            "tree",
            "a decision tree of depth 2",
            DecisionTreeClassifier(max_depth=2, random_state=SEED),
            {"family": "decision tree", "max_depth": 2, "features": 30},
        ),
        (
            "logistic",
            "logistic regression on scaled inputs",
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
            {"family": "logistic regression", "C": 1.0, "features": 30},
        ),
        (
            "careful",
            "logistic regression, false alarms weighed threefold",
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, class_weight={1: 3})),  # 1 is benign
            {"family": "logistic regression", "C": 1.0, "features": 30, "benign_weight": 3},
        ),
        (
            "hasty",
            "logistic regression that looks at two features only",
            make_pipeline(two, StandardScaler(), LogisticRegression()),
            {"family": "logistic regression", "C": 1.0, "features": 2},
        ),
    ]
    made = []
    for name, about, model, parameters in candidates:
        started = time.perf_counter()
        model.fit(rows_train, truth_train)
        seconds = time.perf_counter() - started
        file = directory / f"{name}.onnx"
        file.write_bytes(export(model, rows_train[:1]))
        made.append(
            Trained(
                name=name,
                about=about,
                file=str(file),
                metrics=measure(file, rows_test, truth_test),
                parameters={**parameters, "seed": SEED, "held_out": HELD_OUT},
                seconds=round(seconds, 4),
                rows_trained=len(rows_train),
                rows_held_out=len(rows_test),
                dataset_file=str(source),
                environment=capture.environment().model_dump(mode="json"),
            )
        )
    (directory / "trained.json").write_text(json.dumps([asdict(one) for one in made]))


def load(directory: Path) -> dict[str, Trained]:
    """What `train` made, by name."""
    return {one["name"]: Trained(**one) for one in json.loads((directory / "trained.json").read_text())}


def export(model: Any, sample: Any) -> bytes:
    from skl2onnx import to_onnx

    # Without zipmap the probabilities are one array, which every runtime reads.
    exported: bytes = to_onnx(model, sample, options={"zipmap": False}).SerializeToString()
    return exported


def measure(file: Path, rows: Any, truth: Any) -> dict[str, float]:
    """Metrics of the exported file as a server would run it, not of the Python object it was made from."""
    from onnxruntime import InferenceSession
    from sklearn.metrics import f1_score, roc_auc_score

    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, {session.get_inputs()[0].name: rows})[:2]
    return {
        "accuracy": float((labels == truth).mean()),
        "f1": float(f1_score(truth, labels)),
        "roc_auc": float(roc_auc_score(truth, probabilities[:, 1])),
    }


if __name__ == "__main__":
    train(Path(sys.argv[1]))
