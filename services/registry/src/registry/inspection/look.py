"""Inspects files on the local disk: what they are by their content, then what is in them. Nothing is ever loaded."""

import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.model import Inspection, Signature
from registry.inspection import archives, pickles
from registry.inspection.descriptions import inspect_config, inspect_keras, inspect_mlmodel, inspect_saved_model
from registry.inspection.onnxfile import inspect_onnx
from registry.inspection.pmml import inspect_pmml
from registry.inspection.report import Context, Limits, Report
from registry.inspection.safetensors import header_size, inspect_safetensors

PICKLED = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".p", ".dill", ".cloudpickle", ".pck", ".pcl")
# Of a directory without a description, its most telling file names the format.
ORDER = (
    "onnx",
    "pmml",
    "torchscript",
    "safetensors",
    "keras",
    "hdf5",
    "torch",
    "joblib",
    "pickle",
    "numpy",
    "zip",
    "tar",
)


def inspect(
    directory: Path,
    files: Sequence[str],
    *,
    limits: Limits | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Inspection:
    """Inspects `files`, relative paths under `directory`. `sizes`: the real size of those that are only a head here."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=directory) as scratch:
        context = Context(report, limits or Limits(), Path(scratch), sizes or {}, frozenset(files))
        for file in files:
            kind = _one(context, directory / file, file)
            if kind is not None:
                report.kinds[file] = kind
    return report.result(_overall(report, files), _signature(report))


def _one(context: Context, path: Path, file: str) -> str | None:
    base = file.rpartition("/")[2]
    if file in context.sizes:
        return _only_head(context, path, file)
    if base == "MLmodel":
        inspect_mlmodel(context, path, file)
        return "mlflow"
    if base == "saved_model.pb":
        inspect_saved_model(context, path, file)
        return "savedmodel"
    if base == "keras_metadata.pb":
        inspect_keras(context, path, file)
        return None
    if base == "config.json" and inspect_config(context, path, file):
        return "huggingface"
    return examine(context, path, file, 0)


def examine(context: Context, path: Path, file: str, depth: int) -> str | None:  # noqa: PLR0911, PLR0912 - one per format
    """The format of one file, after a look at what is in it. Content decides, then the name."""
    report, name = context.report, file.lower()
    with path.open("rb") as source:
        head = source.read(4096)
    kind = sniff(head)
    if depth > context.limits.depth and (kind in ("gzip", "bz2", "xz", "zlib", "zip", "tar")):
        report.unsafe("archive-bomb", f"more than {context.limits.depth} archives in one another", file)
        return kind
    also_zip = kind != "zip" and zipfile.is_zipfile(path)
    if kind == "zip" or also_zip:
        found = archives.unzip(context, path, file, depth, examine)
        if not also_zip:
            return found
    if kind == "tar":
        archives.untar(context, path, file, depth, examine)
        return kind
    if kind in ("gzip", "bz2", "xz", "zlib"):
        inner = archives.decompress(context, path, file, kind, depth, examine)
        return "joblib" if inner == "pickle" else inner or kind
    if kind == "unreadable":
        report.unsafe("not-scanned", "it is packed in a way that cannot be looked into", file)
        return None
    if kind == "hdf5":
        inspect_keras(context, path, file)
        return kind
    if kind == "numpy":
        with path.open("rb") as source:
            pickles.scan_npy(source, report, file)
        return kind
    if kind in ("pickle", "torch"):
        return _pickle(context, path, file, torch=kind == "torch")
    if kind == "safetensors" or name.endswith(".safetensors"):
        if inspect_safetensors(context, path, file, named=name.endswith(".safetensors")):
            return "safetensors"
    elif kind == "xml" or name.endswith(".pmml"):
        if inspect_pmml(context, path, file, named=name.endswith(".pmml")):
            return "pmml"
    elif (kind == "protobuf" or name.endswith(".onnx")) and inspect_onnx(
        context, path, file, named=name.endswith(".onnx")
    ):
        return "onnx"
    return _unknown(context, path, file)


def _pickle(context: Context, path: Path, file: str, *, torch: bool) -> str:
    with path.open("rb") as source:
        pickles.scan(source, context.report, file, legacy_torch=torch)
    if torch:
        return "torch"
    return "joblib" if file.lower().endswith(".joblib") else "pickle"


def _unknown(context: Context, path: Path, file: str) -> str | None:
    """No known content. A name that promises a pickle is held to it; anything else is tried as one."""
    name = file.lower()
    if name.endswith(PICKLED):
        return _pickle(context, path, file, torch=False)
    with path.open("rb") as source:
        if pickles.smells(source, context.report, file):
            return "pickle"
    if name.endswith((".keras", ".json")):
        inspect_keras(context, path, file)
    elif name.endswith(".py") and ":" not in file:
        context.report.warn("custom-code", "Python code lies beside the model", file)
    elif name.endswith((".keras", ".h5", ".npy", ".npz", ".zip", ".tar", ".gz")):
        context.report.warn("broken-file", "its content is not what its name says", file)
    return None


def sniff(head: bytes) -> str | None:  # noqa: PLR0911, PLR0912 - a table of first bytes
    """What the first bytes say."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh":
        return "bz2"
    if head[:6] == b"\xfd7zXZ\x00" or head[:3] == b"]\x00\x00":
        return "xz"
    if head[:4] in (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!") or head[:4] == b"ZF0x":
        return "unreadable"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if head[:6] == b"\x93NUMPY":
        return "numpy"
    if head[:1] == b"\x80" and head[1:2] in (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch" if head[2:].startswith(pickles.TORCH_MAGIC) else "pickle"
    if header_size(head) is not None:
        return "safetensors"
    if head[:3].lstrip(b"\xef\xbb\xbf").startswith(b"<") or head.lstrip()[:1] == b"<":
        return "xml"
    if head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0 and _inflates(head):
        return "zlib"
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 0x80:
        return "protobuf"
    return None


def _inflates(head: bytes) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(head, 64))
    except zlib.error:
        return False


def _only_head(context: Context, path: Path, file: str) -> str | None:
    """A file too large to have here. What may hold a pickle is unsafe: nobody has looked at all of it."""
    report, name = context.report, file.lower()
    with path.open("rb") as source:
        head = source.read(4096)
    kind = sniff(head)
    if kind == "safetensors" and inspect_safetensors(context, path, file, named=True):
        return kind
    with path.open("rb") as source:
        smells = kind is None and pickles.smells(source, report, file)
    holds = kind in ("pickle", "torch", "zip", "tar", "gzip", "bz2", "xz", "zlib", "unreadable")
    if kind == "numpy":
        holds = b"O" in head[:256].partition(b"descr")[2].partition(b",")[0]
    if holds or smells or name.endswith(PICKLED):
        report.unsafe("not-scanned", f"{context.sizes[file]} bytes are too many to scan for pickles", file)
    else:
        report.warn("too-large-to-inspect", f"{context.sizes[file]} bytes are too many to inspect", file)
    return None if kind in ("xml", "protobuf", "unreadable", "safetensors") else kind


def _overall(report: Report, files: Sequence[str]) -> str | None:
    kinds = report.kinds
    for kind in ("mlflow", "savedmodel", "huggingface"):
        if kind in kinds.values() and (kind != "huggingface" or len(files) > 1):
            return kind
    return next((kind for kind in ORDER if kind in kinds.values()), next(iter(kinds.values()), None))


def _signature(report: Report) -> Signature:
    """That of MLmodel, else that of the one file that has any: of several nobody knows which one is meant."""
    own = [found for file, found in report.signatures.items() if file.rpartition("/")[2] == "MLmodel"]
    found = own or [found for file, found in report.signatures.items() if ":" not in file]
    return found[0] if len(found) == 1 else Signature()
