"""Files that describe a whole directory: MLmodel, config.json of Hugging Face, saved_model.pb, Keras."""

import json
from pathlib import Path
from typing import Any

import yaml

from contracts.model import Column, Signature
from registry.inspection.report import MIB, Context, column, line

_MOST = 4 * MIB
# TensorFlow operators that read or write any file, or call back into Python.
_REACH_OUT = (b"ReadFile", b"WriteFile", b"PyFunc", b"EagerPyFunc", b"PyFuncStateless", b"MatchingFiles")


def inspect_mlmodel(context: Context, path: Path, file: str) -> None:
    report = context.report
    try:
        given = _small(path, yaml.safe_load)
        if not isinstance(given, dict):
            raise ValueError("it is no mapping")
        flavors = given.get("flavors") or {}
        loader = (flavors.get("python_function") or {}).get("loader_module")
        if isinstance(loader, str) and not loader.startswith("mlflow."):
            report.warn("custom-code", f"it is loaded by its own module {line(loader)}", file)
        signature = given.get("signature") or {}
        sides = {side: _fields(signature.get(side)) for side in ("inputs", "outputs")}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, yaml.YAMLError) as error:
        report.warn("broken-file", f"it is no sound MLmodel: {error}", file)
        return
    if any(columns is None for columns in sides.values()):
        report.info("unnamed-columns", "its signature has columns without a name; they are left out", file)
    found = Signature(inputs=sides["inputs"] or (), outputs=sides["outputs"] or ())
    if found.inputs or found.outputs:
        report.signatures[file] = found


def _fields(given: Any) -> tuple[Column, ...] | None:
    """MLflow's columns and tensors; None when they have no names."""
    if not given:
        return ()
    fields = json.loads(given) if isinstance(given, str) else given
    if any("name" not in each for each in fields):
        return None
    return tuple(_field(each) for each in fields)


def _field(each: dict[str, Any]) -> Column:
    spec = each.get("tensor-spec")
    if spec is None:
        return column(each["name"], _MLFLOW.get(each["type"], each["type"]))
    shape = tuple(n if isinstance(n, int) and n >= 0 else None for n in spec.get("shape", ()))
    return column(each["name"], spec["dtype"], shape)


# Its integer has 32 bits; elsewhere the word says nothing of the width.
_MLFLOW = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


def inspect_config(context: Context, path: Path, file: str) -> bool:
    """Whether a config.json is one of Hugging Face's."""
    try:
        given = _small(path, json.loads)
    except (ValueError, RecursionError):
        context.report.warn("broken-file", "it is no JSON", file)
        return False
    if not isinstance(given, dict):
        return False
    if given.get("auto_map"):
        context.report.warn("custom-code", "it asks for code of its own (auto_map, trust_remote_code)", file)
    return any(key in given for key in ("model_type", "architectures", "transformers_version", "_name_or_path"))


def inspect_saved_model(context: Context, path: Path, file: str) -> None:
    found = search(path, [name for op in _REACH_OUT for name in [b"\x12" + bytes([len(op)]) + op]])
    for name in sorted(found):
        context.report.unsafe("runs-code", f"the operator {name[2:].decode()} reaches out of the model", file)


def inspect_keras(context: Context, path: Path, file: str) -> None:
    """A Lambda layer holds marshalled Python, which Keras runs."""
    if search(path, [b'"class_name": "Lambda"', b'"class_name":"Lambda"']):
        context.report.unsafe("runs-code", "a Lambda layer holds Python code", file)


def search(path: Path, needles: list[bytes]) -> set[bytes]:
    """Which of the needles the file holds, in constant memory."""
    overlap = max(map(len, needles)) - 1
    found: set[bytes] = set()
    tail = b""
    with path.open("rb") as source:
        while chunk := source.read(MIB):
            window = tail + chunk
            found |= {needle for needle in needles if needle in window}
            tail = window[-overlap:]
    return found


def _small(path: Path, parse: Any) -> Any:
    if path.stat().st_size > _MOST:
        raise ValueError("it is too large")
    return parse(path.read_text("utf-8"))
