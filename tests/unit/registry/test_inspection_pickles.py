"""Pickles are scanned and never loaded: none of the attacks here may leave its canary file behind."""

import builtins
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from contracts.model import Inspection, Severity
from registry.inspection import inspect


class Attack:
    """Its pickle calls `function` with `args`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.what = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def attack(canary: Path) -> Attack:
    return Attack(os.system, f"touch {canary}")


def look(directory: Path, name: str, data: bytes) -> Inspection:
    (directory / name).write_bytes(data)
    return inspect(directory, [name])


def codes(found: Inspection, severity: Severity = Severity.UNSAFE) -> set[str]:
    return {finding.code for finding in found.findings if finding.severity is severity}


def torch_zip(pickled: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/data/0", np.arange(1000.0).tobytes())
    return data.getvalue()


def npz(array: Any) -> bytes:
    data = io.BytesIO()
    np.savez(data, array)
    return data.getvalue()


def npy(array: Any) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def dumped(value: Any, **how: Any) -> bytes:
    data = io.BytesIO()
    joblib.dump(value, data, **how)
    return data.getvalue()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "notes.txt", "weights.safetensors"])
def test_a_call_is_unsafe_whatever_the_protocol_and_the_name(
    tmp_path: Path, attack: Attack, canary: Path, protocol: int, name: str
) -> None:
    found = look(tmp_path, name, pickle.dumps({"weights": [1.5], "x": attack}, protocol))
    assert found.format == "pickle"
    assert codes(found) == {"pickle-import"}
    assert not canary.exists()
    pickle.loads(pickle.dumps(attack, protocol))  # the attack is a real one
    assert canary.exists()


@pytest.mark.parametrize(
    "function",
    [builtins.exec, builtins.eval, builtins.getattr, builtins.__import__, pickle.loads, np.load, joblib.load],
)
def test_functions_that_run_code_are_unsafe(tmp_path: Path, function: Callable[..., Any]) -> None:
    assert codes(look(tmp_path, "m.pkl", pickle.dumps(Attack(function, "1")))) == {"pickle-import"}


CONTAINERS: dict[str, Callable[[Any], bytes]] = {
    "m.pt": lambda bad: torch_zip(pickle.dumps(bad, 2)),
    "m.npz": lambda bad: npz(np.array([bad], dtype=object)),
    "m.npy": lambda bad: npy(np.array([bad], dtype=object)),
    "m.joblib": lambda bad: dumped({"a": np.arange(1000), "b": bad}),
    "array.joblib": lambda bad: dumped({"a": np.array([1, bad], dtype=object)}),
    "zlib.joblib": lambda bad: dumped([np.arange(1000), bad], compress=("zlib", 3)),
    "gzip.joblib": lambda bad: dumped([np.arange(1000), bad], compress=("gzip", 3)),
    "bz2.joblib": lambda bad: dumped([np.arange(1000), bad], compress=("bz2", 3)),
    "lzma.joblib": lambda bad: dumped([np.arange(1000), bad], compress=("lzma", 3)),
    "xz.joblib": lambda bad: dumped([np.arange(1000), bad], compress=("xz", 3)),
    "nested.zip": lambda bad: torch_zip(torch_zip(pickle.dumps(bad))),
    "second.pkl": lambda bad: pickle.dumps(1) + pickle.dumps(bad),
    "behind.zip": lambda bad: pickle.dumps(bad) + torch_zip(pickle.dumps(1)),
    "cut.pkl": lambda bad: pickle.dumps([bad, "x" * 100])[:-50],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_attack_is_found_inside(tmp_path: Path, attack: Attack, canary: Path, name: str) -> None:
    found = look(tmp_path, name, CONTAINERS[name](attack))
    assert "pickle-import" in codes(found), found
    assert not canary.exists()


def short(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + struct.pack("B", len(text)) + text.encode()


TRICKS = {
    # picklescan issue 14: PUT and MEMOIZE mixed, so that a simple reader takes the wrong text for the module
    "memo": short("os") + b"q\x00" + short("system") + b"q\x01" + short("collections") + b"\x94" + short("OrderedDict")
    + b"\x94" + b"h\x00h\x01\x93" + short("true") + b"\x85R.",
    # the text is computed by a call
    "computed": b"cbuiltins\nstr\n" + short("os") + b"\x85R" + short("system") + b"\x93.",
    # modelscan issue 85: BUILD writes attributes into an import
    "build": b"cnumpy\nndarray\nN}" + short("a") + short("os") + b"s\x86b.",
    # modelscan issue 89: through a module to another one
    "through": b"csklearn.base\nwarnings.sys.modules\n.",
    "inner": b"cnumpy\n__builtins__\n.",
    "extension": b"\x82\x01.",
    "call of a call": b"cbuiltins\nstr\n)R)R.",
    "torch in torch": b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
}  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_that_fooled_other_scanners_are_unsafe(tmp_path: Path, name: str) -> None:
    assert look(tmp_path, "m.pkl", b"\x80\x04" + TRICKS[name]).unsafe


def test_code_hidden_in_the_bytes_of_an_array_is_unsafe(tmp_path: Path, canary: Path) -> None:
    """joblib takes the bytes for numbers, pickle for opcodes."""
    code = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    data = dumped(np.frombuffer(code, dtype="u1"))
    assert not look(tmp_path, "honest.joblib", data).unsafe  # plain pickle stops at joblib's padding
    # As joblib wrote before 1.2: without the key of the alignment, and without padding.
    key = b"\x8c\x1bnumpy_array_alignment_bytes\x94K\x10"
    end = data.index(key) + len(key) + 2
    pickled = data[:end].replace(key, b"")
    frame = pickled.index(b"\x95") + 1
    pickled = pickled[:frame] + struct.pack("<Q", len(pickled) - frame - 8) + pickled[frame + 8 :]
    attack = pickled + code + b"."
    assert joblib.load(io.BytesIO(attack)).tobytes() == code
    found = look(tmp_path, "m.joblib", attack)
    assert [f.detail for f in found.findings] == ["the pickle imports os.system, known to run code"]
    assert not canary.exists()
    pickle.loads(attack)
    assert canary.exists()


def test_an_import_that_nobody_knows_is_a_warning(tmp_path: Path) -> None:
    found = look(tmp_path, "m.pkl", b"cour.models\nScorer\n)\x81.")
    assert codes(found, Severity.WARNING) == {"pickle-import"}
    assert not found.unsafe
    assert "our.models.Scorer" in found.findings[0].detail


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x04", pickle.dumps([1.5] * 100)[:-1]])
def test_a_pickle_that_cannot_be_read_to_its_end_is_unsafe(tmp_path: Path, data: bytes) -> None:
    assert codes(look(tmp_path, "m.pkl", data)) == {"not-scanned"}


@pytest.mark.parametrize("before", [b"N0" * 60_000, b"N." * 20_000])
@pytest.mark.parametrize("name", ["m.pkl", "notes.txt"])
def test_a_long_run_of_nothing_hides_nothing(
    tmp_path: Path, attack: Attack, canary: Path, before: bytes, name: str
) -> None:
    assert look(tmp_path, name, before + pickle.dumps(attack, 0)).unsafe
    assert not canary.exists()


def test_long_bytes_are_stepped_over(tmp_path: Path, attack: Attack) -> None:
    for protocol in (3, 4, 5):
        data = pickle.dumps([b"." * 70_000, bytearray(b"." * 70_000), attack], protocol)
        assert codes(look(tmp_path, "m.pkl", data)) == {"pickle-import"}
    assert codes(look(tmp_path, "m.pkl", b"\x80\x04\x8e" + b"\xff" * 8 + b"abc")) == {"not-scanned"}


LONG = [b"X", b"T", b"\x8b", b"\x8d"]  # opcodes with a length of four or eight bytes


@pytest.mark.parametrize("code", LONG)
def test_plain_bytes_that_name_a_long_value_are_no_pickle(tmp_path: Path, code: bytes) -> None:
    """Weights begin with any byte. Nobody reads as much as they seem to say."""
    assert look(tmp_path, "weights.bin", code + b"\xff\xff\xff\x7f" * 2 + os.urandom(5_000)).findings == ()
    assert codes(look(tmp_path, "m.pkl", code + b"\xff\xff\xff\x7f" * 2 + b"abc")) == {"not-scanned"}


# In protocols 0 and 1 a number is a line of digits, and Python refuses to write so many.
TEXT, NUMBER = "x" * 2_000_000, 1 << 9_000_000
LONG_VALUES = {**{f"text-{n}": (TEXT, n) for n in range(6)}, **{f"number-{n}": (NUMBER, n) for n in range(2, 6)}}


@pytest.mark.parametrize("value", LONG_VALUES)
@pytest.mark.parametrize("name", ["m.pkl", "notes.txt"])
def test_a_long_value_hides_nothing(tmp_path: Path, attack: Attack, canary: Path, name: str, value: str) -> None:
    content, protocol = LONG_VALUES[value]
    assert codes(look(tmp_path, name, pickle.dumps([content, attack], protocol))) == {"pickle-import"}
    assert not canary.exists()


X = np.random.default_rng(1).random((80, 4))
Y = (X[:, 0] > 0.5).astype(int)
HONEST: dict[str, Any] = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "forest": RandomForestClassifier(5).fit(X, Y),
    "boosting": GradientBoostingClassifier(n_estimators=3).fit(X, Y),
    "mixed": {
        "objects": np.array([{}, "x", None], dtype=object),
        "records": np.zeros(3, dtype=[("x", "f8"), ("name", "U3")]),
        "days": np.arange("2020-01-01", "2020-01-04", dtype="M8[D]"),
        "letters": np.array(["cos", "b"]),
        "number": np.float32(3),
    },
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_have_no_findings(tmp_path: Path, name: str) -> None:
    model = HONEST[name]
    for data in [
        *(pickle.dumps(model, protocol) for protocol in (0, 2, 4, 5)),
        dumped(model),
        *(dumped(model, compress=(how, 3)) for how in ("zlib", "gzip", "bz2", "lzma", "xz")),
        torch_zip(pickle.dumps(model, 2)),
    ]:
        assert look(tmp_path, "m.joblib", data).findings == ()
