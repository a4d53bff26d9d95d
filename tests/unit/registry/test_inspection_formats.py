"""Every format is known by its content; what is broken or hostile is a finding, never an exception."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from contracts.model import Column, Inspection, Severity, Signature
from registry.inspection import Limits, contradiction, inspect

SMALL = Limits(unpacked=1 << 20, ratio=50, ratio_from=100_000, members=100)


def look(directory: Path, name: str, data: bytes, limits: Limits | None = None) -> Inspection:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)
    return inspect(directory, [name], limits=limits)


def codes(found: Inspection, severity: Severity = Severity.UNSAFE) -> set[str]:
    return {finding.code for finding in found.findings if finding.severity is severity}


def onnx_model(*nodes: Any, weights: tuple[Any, ...] = ()) -> Any:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("y", TensorProto.DOUBLE, [1, 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def tensors(header: Any, data: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def stored(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(*members: tarfile.TarInfo, how: Any = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=how) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return data.getvalue()


def member(name: str, **values: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


def test_onnx_has_its_signature_whatever_its_name(tmp_path: Path) -> None:
    x = np.random.default_rng(1).random((20, 4), dtype="f4")
    model = to_onnx(LogisticRegression().fit(x, x[:, 0] > 0.5), x[:1])
    found = look(tmp_path, "model.bin", model.SerializeToString())
    assert (found.format, found.findings) == ("onnx", ())
    assert found.signature.inputs == (Column(name="X", dtype="float32", shape=(None, 4)),)
    assert found.signature.outputs[1].dtype == "sequence(map(int64,float32))"


def test_onnx_weights_are_no_inputs(tmp_path: Path) -> None:
    model = onnx_model(weights=(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]),))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))
    found = look(tmp_path, "m.onnx", model.SerializeToString())
    assert [column.name for column in found.signature.inputs] == ["x"]
    assert found.signature.outputs == (Column(name="y", dtype="float64", shape=(1, 2)),)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../b", "..\\b", "C:\\b", "weights.bin"])
def test_onnx_data_outside_of_the_directory_is_unsafe(tmp_path: Path, location: str) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)  # deep inside
    found = look(tmp_path, "m.onnx", onnx_model(node).SerializeToString())
    if location == "weights.bin":
        assert codes(found, Severity.WARNING) == {"external-data-missing"}
        (tmp_path / "weights.bin").write_bytes(bytes(4))
        assert inspect(tmp_path, ["m.onnx", "weights.bin"]).findings == ()
    else:
        assert codes(found) == {"path-escape"}


def test_onnx_operators_of_others_are_told(tmp_path: Path) -> None:
    foreign = onnx_model(helper.make_node("Magic", ["x"], ["y"], domain="com.acme"))
    assert codes(look(tmp_path, "m.onnx", foreign.SerializeToString()), Severity.WARNING) == {"custom-operators"}
    python = onnx_model(helper.make_node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib"))
    assert codes(look(tmp_path, "m.onnx", python.SerializeToString())) == {"runs-code"}


PMML = """<?xml version="1.0"?>{doctype}
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><DataDictionary>
<DataField name="age" optype="continuous" dataType="double"/><DataField name="risk" dataType="string"/></DataDictionary>
<TreeModel functionName="classification"><MiningSchema><MiningField name="age"/>
<MiningField name="risk" usageType="target"/></MiningSchema>{output}</TreeModel></PMML>"""
BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def test_pmml_has_its_signature(tmp_path: Path) -> None:
    found = look(tmp_path, "m.xml", PMML.format(doctype="", output="").encode())
    assert (found.format, found.findings) == ("pmml", ())
    assert found.signature.inputs == (Column(name="age", dtype="double"),)
    assert found.signature.outputs == (Column(name="risk", dtype="string"),)
    output = '<Output><OutputField name="p" dataType="float"/></Output>'
    found = look(tmp_path, "m.pmml", PMML.format(doctype="", output=output).encode())
    assert found.signature.outputs == (Column(name="p", dtype="float"),)


@pytest.mark.parametrize("doctype", [BOMB, OUTSIDE, "<!DOCTYPE x>"])
def test_xml_attacks_are_unsafe(tmp_path: Path, doctype: str) -> None:
    found = look(tmp_path, "m.pmml", PMML.format(doctype=doctype, output="&a;").encode())
    assert codes(found) == {"xml-attack"}
    assert found.format == "pmml"


def test_safetensors_weights_are_no_schema(tmp_path: Path) -> None:
    header: dict[str, Any] = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    found = look(tmp_path, "m.bin", tensors(header, bytes(16)))
    assert (found.format, found.signature, codes(found, Severity.INFO)) == ("safetensors", Signature(), {"weights"})
    header["__metadata__"] = {"inputs": json.dumps([{"name": "x", "dtype": "F32", "shape": [-1, 2]}])}
    found = look(tmp_path, "m.safetensors", tensors(header, bytes(16)))
    assert found.signature.inputs == (Column(name="x", dtype="F32", shape=(None, 2)),)


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 10_000) + b"{}",
        tensors({"w": W}, bytes(7)),
        tensors({"w": W}, bytes(9)),
        tensors({"w": W, "v": W}, bytes(8)),
        tensors({"w": {**W, "data_offsets": [8, 16]}}, bytes(16)),
        tensors({"w": {**W, "shape": [3]}}, bytes(8)),
        tensors({"w": {**W, "shape": [-2]}}, bytes(8)),
        tensors({"w": {**W, "dtype": "OBJECT"}}, bytes(8)),
        tensors([1]),
        tensors({"__metadata__": {"a": 1}}),
        struct.pack("<Q", 24) + b'{"w":' + b"[" * 19,
    ],
)
def test_a_lying_safetensors_header_is_a_finding(tmp_path: Path, data: bytes) -> None:
    found = look(tmp_path, "m.safetensors", data)
    assert codes(found, Severity.WARNING) == {"broken-file"}
    assert found.format is None


@pytest.mark.parametrize("name", ["m.onnx", "m.pmml", "m.safetensors", "m.h5", "m.zip"])
@pytest.mark.parametrize("data", [b"", b"\x08\x07\x12", b"<PMML><", b"not this", onnx_model().SerializeToString()[:40]])
def test_a_mislabelled_file_is_a_finding(tmp_path: Path, name: str, data: bytes) -> None:
    found = look(tmp_path, name, data)
    assert codes(found, Severity.WARNING) == {"broken-file"}
    assert not found.unsafe


STARTS = [
    b"",
    b"\x80\x04",
    b"PK\x03\x04",
    b"\x93NUMPY\x01\x00",
    b"x\x9c",
    b"\x1f\x8b",
    b"\x08\x07",
    b"<",
    b"]",
    b"BZh9",
]
NAMES = ["m", "m.onnx", "m.pkl", "m.safetensors", "config.json", "MLmodel", "saved_model.pb", "a.npy"]


@given(st.binary(max_size=300), st.sampled_from([*STARTS, struct.pack("<Q", 20) + b"{"]), st.sampled_from(NAMES))
def test_any_bytes_are_inspected_without_an_exception(data: bytes, start: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        look(Path(directory), name, start + data, SMALL)


HOSTILE: dict[str, tuple[str, bytes]] = {
    "zip bomb": ("archive-bomb", zipped({"zeros": bytes(3_000_000)})),
    "zip in zip bomb": ("archive-bomb", zipped({"a.zip": zipped({"b.zip": zipped({"z": bytes(900_000)})})})),
    "many members": ("archive-bomb", zipped({str(n): b"" for n in range(200)})),
    "deep": ("archive-bomb", zipped({"a": zipped({"b": zipped({"c": zipped({"d": zipped({"e": b"x"})})})})})),
    "gzip bomb": ("archive-bomb", gzip.compress(bytes(3_000_000))),
    "zlib bomb": ("archive-bomb", zlib.compress(bytes(3_000_000))),
    "zip slip": ("path-escape", zipped({"../../x.py": b"x"})),
    "zip absolute": ("path-escape", zipped({"/etc/x": b"x"})),
    "tar slip": ("path-escape", tarred(member("../x"))),
    "tar link": ("path-escape", tarred(member("x", type=tarfile.SYMTYPE, linkname="../../etc/passwd"))),
    "tar device": ("path-escape", tarred(member("x", type=tarfile.CHRTYPE))),
    "tar.gz slip": ("path-escape", tarred(member("/x"), how="w:gz")),
    "wrong checksum": ("not-scanned", stored({"data.bin": b"hello" * 30}).replace(b"hello", b"jello", 1)),
    "7z": ("not-scanned", b"7z\xbc\xaf\x27\x1c" + bytes(40)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_unsafe(tmp_path: Path, name: str) -> None:
    code, data = HOSTILE[name]
    found = look(tmp_path, "model.data", data, SMALL)
    assert code in codes(found), found
    assert [path.name for path in tmp_path.iterdir()] == ["model.data"]


def test_mlflow_directory(tmp_path: Path) -> None:
    mlmodel = {
        "flavors": {"python_function": {"loader_module": "our.loader"}},
        "signature": {
            "inputs": json.dumps([{"type": "long", "name": "age", "required": True}]),
            "outputs": json.dumps(
                [{"type": "tensor", "name": "p", "tensor-spec": {"dtype": "float32", "shape": [-1]}}]
            ),
        },
    }
    (tmp_path / "MLmodel").write_text(json.dumps(mlmodel))  # JSON is YAML
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(print))
    found = inspect(tmp_path, ["MLmodel", "model.pkl"])
    assert found.format == "mlflow"
    assert found.signature.inputs == (Column(name="age", dtype="int64"),)
    assert found.signature.outputs == (Column(name="p", dtype="float32", shape=(None,)),)
    assert codes(found, Severity.WARNING) == {"custom-code"}
    assert codes(found) == {"pickle-import"}


def test_hugging_face_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "m.M"}}))
    (tmp_path / "model.safetensors").write_bytes(tensors({"w": W}, bytes(8)))
    (tmp_path / "modeling.py").write_text("print()")
    found = inspect(tmp_path, ["config.json", "model.safetensors", "modeling.py"])
    assert found.format == "huggingface"
    assert [f.file for f in found.findings if f.code == "custom-code"] == ["config.json", "modeling.py"]


def test_saved_model_that_reaches_out_is_unsafe(tmp_path: Path) -> None:
    found = look(tmp_path, "saved_model.pb", b"\x08\x01\x12\x20\x0a\x03abc\x12\x06MatMul")
    assert (found.format, found.findings) == ("savedmodel", ())
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables/variables.index").write_bytes(bytes(20))
    (tmp_path / "saved_model.pb").write_bytes(bytes((1 << 20) - 5) + b"\x12\x09WriteFile")  # across two chunks
    found = inspect(tmp_path, ["saved_model.pb", "variables/variables.index"])
    assert (found.format, codes(found)) == ("savedmodel", {"runs-code"})


def test_torchscript_and_keras(tmp_path: Path) -> None:
    own = b"\x80\x02c__torch__.our\nNet\nq\x00)\x81."
    code = {"m/code/__torch__/our.py": b"class Net: ...", "m/constants.pkl": b"\x80\x02)."}
    script = zipped({"m/data.pkl": own, **code})
    found = look(tmp_path, "m.pt", script)
    assert (found.format, found.findings) == ("torchscript", ())
    layers = json.dumps({"layers": [{"class_name": "Lambda"}]}).encode()
    keras = zipped({"config.json": layers, "metadata.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n"})
    found = look(tmp_path, "m.keras", keras)
    assert (found.format, codes(found)) == ("keras", {"runs-code"})


def test_of_a_file_too_large_only_what_may_hold_a_pickle_is_unsafe(tmp_path: Path) -> None:
    vast = {"dtype": "F32", "shape": [1 << 31], "data_offsets": [0, 1 << 33]}
    for name, head, code, severity in [
        ("a.pkl", b"\x80\x04", "not-scanned", Severity.UNSAFE),
        ("b.bin", zipped({"a": b"a"}), "not-scanned", Severity.UNSAFE),
        ("c.onnx", onnx_model().SerializeToString(), "too-large-to-inspect", Severity.WARNING),
        ("d.safetensors", tensors({"w": vast}), "weights", Severity.INFO),
    ]:
        (tmp_path / name).write_bytes(head)
        size = (1 << 33) + len(head)
        assert codes(inspect(tmp_path, [name], sizes={name: size}), severity) == {code}


def columns(*triples: tuple[str, str, tuple[int | None, ...]]) -> Signature:
    return Signature(inputs=tuple(Column(name=n, dtype=d, shape=s) for n, d, s in triples))


@pytest.mark.parametrize(
    "spelling", ["float32", "float", "FLOAT", "tensor(float)", "np.float32", "<f4", "F32", "number"]
)
def test_spellings_of_one_type_do_not_contradict(spelling: str) -> None:
    found = columns(("x", "float32", (None, 4)))
    assert contradiction(columns(("x", spelling, (-1, 4))), found) is None
    assert contradiction(columns(("x", spelling, (4,))), found) is None
    assert contradiction(columns(("x", spelling, ())), found) is None


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        (("z", "float32", (None, 4)), "'z'"),
        (("x", "double", (None, 4)), "double"),
        (("x", "int64", (None, 4)), "int64"),
        (("x", "string", (None, 4)), "string"),
        (("x", "float32", (None, 5)), "[?, 5]"),
        (("x", "float32", (None, 2, 4)), "[?, 2, 4]"),
    ],
)
def test_a_contradiction_says_what_differs(declared: tuple[str, str, tuple[int | None, ...]], word: str) -> None:
    said = contradiction(columns(declared), columns(("x", "float32", (None, 4))))
    assert said is not None
    assert word in said


def test_what_is_left_open_contradicts_nothing() -> None:
    found = Signature(inputs=(Column(name="x", dtype="int64"),), outputs=(Column(name="y", dtype="int64"),))
    assert contradiction(Signature(), found) is None
    assert contradiction(found, Signature()) is None
    both = columns(("x", "integer", ()), ("more", "integer", ()))
    assert contradiction(columns(("x", "integer", ())), both) is not None
