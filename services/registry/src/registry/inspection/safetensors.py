"""safetensors: the header is checked as its specification asks; the tensors are plain numbers.

The file holds weights. Their names are no inputs or outputs, so they never become a signature: a schema made of them
would be wrong. Only metadata that its writer calls `inputs`, `outputs` or `signature` (JSON, a list of name, dtype and
shape) counts as one.
"""

import json
import math
from pathlib import Path
from typing import Any

from contracts.model import Column, Signature
from registry.inspection.report import Context, column, line

MOST_HEADER = 100_000_000  # as the reference reader
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}
_BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
_BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
_BITS |= {"F64": 64, "I64": 64, "U64": 64, "C64": 64}


def header_size(head: bytes) -> int | None:
    """Bytes of the JSON header, if these may be the first bytes of a safetensors file."""
    size = int.from_bytes(head[:8], "little")
    return size if len(head) > 8 and 2 <= size <= MOST_HEADER and head[8:9] == b"{" else None


def inspect_safetensors(context: Context, path: Path, file: str, *, named: bool) -> bool:
    total = context.sizes.get(file, path.stat().st_size)
    try:
        with path.open("rb") as source:
            size = header_size(source.read(9))
            if size is None or size > total - 8:
                raise ValueError("the length of its header is wrong")
            source.seek(8)
            raw = source.read(size)
        if len(raw) < size:
            raise ValueError("its header ends too early")
        header = json.loads(raw, object_pairs_hook=_unique)
        metadata, dtypes, numbers = _check(header, total - 8 - size)
    except (ValueError, RecursionError) as error:
        if named:
            context.report.warn("broken-file", f"it is no sound safetensors file: {error}", file)
        return False
    context.report.info("weights", f"{len(header) - bool(metadata)} tensors, {numbers} numbers, {dtypes}", file)
    if signature := _signature(metadata):
        context.report.signatures[file] = signature
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header names something twice")
    return found


def _check(header: Any, size: int) -> tuple[dict[str, str], str, int]:
    """Metadata, the dtypes in use and the count of numbers. The tensors must fill the file without hole or overlap."""
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    spans, dtypes, numbers = [], set(), 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"the tensor {line(name)!r} is malformed")
        dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        if dtype not in _BITS or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
            raise ValueError(f"the tensor {line(name)!r} is malformed")
        count = math.prod(shape)
        if (offsets[1] - offsets[0]) * 8 != count * _BITS[dtype]:
            raise ValueError(f"the tensor {line(name)!r} does not have the length of its shape")
        spans.append((offsets[0], offsets[1]))
        dtypes.add(dtype)
        numbers += count
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError("its tensors overlap or leave a hole")
        end = stop
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, the file has {size}")
    return metadata, ", ".join(sorted(dtypes)), numbers


def _counts(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 100
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in value)
    )


def _signature(metadata: dict[str, str]) -> Signature | None:
    try:
        given = json.loads(metadata["signature"]) if "signature" in metadata else {}
        for side in ("inputs", "outputs"):
            if side in metadata:
                given[side] = json.loads(metadata[side])
        found = Signature(inputs=_columns(given.get("inputs", [])), outputs=_columns(given.get("outputs", [])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if found.inputs or found.outputs else None


def _columns(given: Any) -> tuple[Column, ...]:
    return tuple(
        column(each["name"], each.get("dtype") or each["type"], tuple(_dimension(n) for n in each.get("shape") or ()))
        for each in given
    )


def _dimension(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value if value is not None and value >= 0 else None
    raise ValueError("a dimension is no number")
