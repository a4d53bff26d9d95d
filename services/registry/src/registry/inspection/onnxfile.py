"""ONNX: parsed, never run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

from contracts.model import Column, Signature
from registry.inspection.report import Context, column, line

# What every runtime brings; an operator of another domain is native code that the server must load.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}
_RUNS_PYTHON = {"PyOp", "PythonOp", "PythonOpGrad", "PyCustomOp"}


def inspect_onnx(context: Context, path: Path, file: str, *, named: bool) -> bool:
    """Whether it is an ONNX model. `named`: its name says so, hence it is a finding when it is not."""
    report = context.report
    size = path.stat().st_size
    if size > min(context.limits.message, context.limits.memory // 3):
        if named:
            report.warn("too-large-to-inspect", f"{size} bytes are too many to parse", file)
        return named
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        if named:
            report.warn("broken-file", f"it is no ONNX model: {error}", file)
        return False
    graph = model.graph
    if not graph.output or not model.opset_import:
        if named:
            report.warn("broken-file", "it is no ONNX model: no graph with outputs", file)
        return False
    weights = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    report.signatures[file] = Signature(
        inputs=tuple(_column(each) for each in graph.input if each.name not in weights),
        outputs=tuple(_column(each) for each in graph.output),
    )
    _check_operators(context, model, file)
    for tensor in _tensors(model):
        _check_external(context, tensor, file)
    return True


def _column(info: Any) -> Column:
    kind = info.type
    shape: tuple[int | None, ...] = ()
    if kind.WhichOneof("value") in ("tensor_type", "sparse_tensor_type"):
        tensor = kind.tensor_type if kind.HasField("tensor_type") else kind.sparse_tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
    return column(info.name, _type(kind), shape[:100])


def _type(kind: Any) -> str:
    match kind.WhichOneof("value"):
        case "tensor_type":
            return _element(kind.tensor_type.elem_type)
        case "sparse_tensor_type":
            return f"sparse({_element(kind.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"sequence({_type(kind.sequence_type.elem_type)})"
        case "map_type":
            return f"map({_element(kind.map_type.key_type)},{_type(kind.map_type.value_type)})"
        case "optional_type":
            return f"optional({_type(kind.optional_type.elem_type)})"
    return "undefined"


def _element(number: int) -> str:
    try:
        name = str(onnx.TensorProto.DataType.Name(number))
    except ValueError:
        return "undefined"
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


def _check_operators(context: Context, model: Any, file: str) -> None:
    own = {(each.domain, each.name) for each in model.functions}
    foreign = set()
    for node in _nodes(model):
        if node.op_type in _RUNS_PYTHON:
            context.report.unsafe("runs-code", f"the operator {line(node.op_type)} runs Python", file)
        elif node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            foreign.add(f"{node.domain}.{node.op_type}")
    if foreign:
        names = ", ".join(sorted(foreign)[:20])
        context.report.warn("custom-operators", f"it needs operators of a library of its own: {names}", file)


def _nodes(model: Any) -> Iterator[Any]:
    todo = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while todo:
        node = todo.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                todo += graph.node


def _tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph, *(info.algorithm for info in model.training_info)]
    graphs += [info.initialization for info in model.training_info]
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs += [attribute.g, *attribute.graphs]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _check_external(context: Context, tensor: Any, file: str) -> None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
        return
    location = next((each.value for each in tensor.external_data if each.key == "location"), "")
    parts = location.replace("\\", "/").split("/")
    if location.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", location) or "\x00" in location:
        context.report.unsafe("path-escape", f"its data lies outside of the directory: {location!r}", file)
        return
    folder = file.rpartition("/")[0]
    wanted = "/".join(part for part in (folder, *parts) if part not in ("", "."))
    if wanted not in context.files:
        context.report.warn("external-data-missing", f"its data {location!r} is not among the files", file)
