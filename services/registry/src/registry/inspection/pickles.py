"""Pickles, joblib's files and NumPy's arrays of objects: scanned, never loaded.

Chosen: picklescan (MIT, no dependency, released 2026-07, kept because Hugging Face runs on it) for its list of known
attacks. Its reader is not used: it takes neighbouring opcodes for the stack, gives up inside joblib's files and calls
a file that it cannot read harmless. `machine` reads, `imports` judges. Not chosen: fickling (LGPL, and a POP hid calls
from it), modelscan (not for Python 3.13, pins an old rich, block list only, known bypasses open since 2024),
modelaudit-picklescan (alpha, and its verdict depends on the packages that happen to be installed).
"""

import ast
import math
import re
from typing import Any, BinaryIO

from contracts.model import Severity
from registry.inspection.imports import judge
from registry.inspection.machine import (
    BY_CODE,
    FORK_OPCODES,
    MAX_DEPTH,
    Box,
    Broken,
    Import,
    Machine,
    Made,
    Seen,
    TooLong,
    Unreadable,
)
from registry.inspection.report import Report

MAX_PICKLES = 10_000
TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_DTYPE = re.compile(r"[<>|=]?([?biufcmMSUVO])(\d*)")
_LARGEST = {"?": 1, "b": 1, "i": 8, "u": 8, "f": 16, "c": 32, "m": 8, "M": 8}


def scan(source: BinaryIO, report: Report, file: str, *, torchscript: bool = False, legacy_torch: bool = False) -> None:
    """Every pickle from the current position of `source`, which must seek. A file that ends or breaks on the way is
    unsafe too: what stands before the break runs, and what stands behind it was not seen."""
    seen = Seen()
    try:
        for _ in range(5 if legacy_torch else 1):
            Machine(source, seen, _array).run()
    except (Broken, Unreadable) as error:
        report.unsafe("not-scanned", f"the pickle cannot be read to its end: {error}", file)
    else:
        _guess(source, seen)
    _tell(seen, report, file, torchscript=torchscript)


def smells(source: BinaryIO, report: Report, file: str) -> bool:
    """Whether a file of no known format is a pickle after all (one of protocol 0 starts with any letter).

    True: it reads as one that imports something; that is reported.
    """
    seen = Seen()
    whole = _guess(source, seen)
    if not seen.tricks and not any(whole or _severe(each) for each in seen.imports):
        return False
    _tell(seen, report, file)
    return True


def _severe(found: Import) -> bool:
    verdict = judge(found.module, found.name)
    return verdict is None or verdict[0] is Severity.UNSAFE


def _guess(source: BinaryIO, seen: Seen) -> int:
    """Reads on as long as it reads as pickles; how many did. What breaks is no pickle; what it imported is kept."""
    tried = Seen(guess=True)
    whole = 0
    try:
        while whole < MAX_PICKLES:
            Machine(source, tried, None).run(FORK_OPCODES)
            whole += 1
        seen.trick(f"is followed by {whole} more")
    except TooLong:
        seen.trick("is too long to tell what it is")
    except (Broken, Unreadable):
        pass
    _keep(tried, seen)
    return whole


def _keep(tried: Seen, seen: Seen) -> None:
    """Of a reading that may be of plain bytes: only what is a name at all."""
    for each in tried.imports:
        if re.fullmatch(r"[A-Za-z_][\w.]*", each.module) and re.fullmatch(r"[A-Za-z_][\w.]*", each.name):
            seen.imports[each] = None
    if tried.imports:
        seen.tricks.update(tried.tricks)


def _tell(seen: Seen, report: Report, file: str, *, torchscript: bool = False) -> None:
    for trick in seen.tricks:
        report.unsafe("pickle-trick", f"the pickle {trick}", file)
    for each in seen.imports:
        verdict = judge(each.module, each.name, torchscript)
        if verdict is None:
            continue
        severity, why = verdict
        if severity is Severity.UNSAFE:
            report.unsafe("pickle-import", f"the pickle {why}", file)
        else:
            report.warn("pickle-import", f"the pickle {why}", file)


def _array(machine: Machine, wrapper: Made) -> None:
    """Steps over the array that joblib wrote behind its wrapper."""
    source = machine.source
    here = source.tell()
    if machine.frame_end > here:
        raise Unreadable("an array in the middle of a frame")
    if source.read(1) in BY_CODE:
        source.seek(here)
        _plain_reading(machine, objects=_is_of_objects(wrapper))
    source.seek(here)
    state = wrapper.state.items if isinstance(wrapper.state, Box) else None
    if state is None or not isinstance(state.get("shape"), tuple):
        raise Unreadable("joblib's array has no plain shape")
    shape = state["shape"]
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise Unreadable("joblib's array has no plain shape")
    width = _width(state.get("dtype"))
    if width is None:
        if machine.depth >= MAX_DEPTH:
            raise Unreadable("arrays of objects too deep in one another")
        Machine(source, machine.seen, _array, machine.depth + 1).run()
        return
    alignment = state.get("numpy_array_alignment_bytes")
    skip = math.prod(shape) * width
    if alignment is not None:
        padding = source.read(1)
        skip += padding[0] if padding else 1
    end = source.seek(0, 2)
    if here + skip > end:
        raise Broken("an array is longer than the file")
    source.seek(here + skip + (0 if alignment is None else 1))


def _plain_reading(machine: Machine, *, objects: bool) -> None:
    """Plain pickle knows nothing of joblib's arrays and would go on in their bytes; that may be the very attack.

    The pickle of an array of objects makes sense that way, but with wrong names; only the dangerous ones count.
    """
    twin, tried = machine.fork(), Seen(guess=True)
    twin.seen = tried
    try:
        twin.run(FORK_OPCODES)
    except TooLong:
        machine.seen.trick("reads as another one inside of an array")
    except (Broken, Unreadable):
        pass
    if objects:
        tried.imports = {each: None for each in tried.imports if _severe(each)}
    _keep(tried, machine.seen)


def _is_of_objects(wrapper: Made) -> bool:
    state = wrapper.state.items if isinstance(wrapper.state, Box) else {}
    try:
        return _width(state.get("dtype")) is None
    except Unreadable:
        return False


def _width(dtype: Any) -> int | None:
    """Bytes of one element; None for objects. Raises Unreadable when it is not beyond doubt."""
    if not (isinstance(dtype, Made) and dtype.of == Import("numpy", "dtype") and dtype.args):
        raise Unreadable("an array of unknown type")
    match = _DTYPE.fullmatch(dtype.args[0]) if isinstance(dtype.args[0], str) else None
    if match is None:
        raise Unreadable("an array of unknown type")
    kind, digits = match.groups()
    state = dtype.state if isinstance(dtype.state, tuple) and len(dtype.state) >= 7 else None
    if dtype.state is not None and (state is None or state[2] is not None):
        raise Unreadable("an array of unknown type")
    if kind == "O":
        return None
    if kind in "SUV":
        fields = state[4] if state else None
        if fields is not None:
            inner = fields.items.values() if isinstance(fields, Box) else ()
            if not inner or any(_width(f[0] if isinstance(f, tuple) and f else None) is None for f in inner):
                raise Unreadable("an array of records that hold objects")
        if state and isinstance(state[5], int) and state[5] > 0:
            return state[5]
        return int(digits or 0) * (4 if kind == "U" else 1)
    if state and state[5] != -1:
        raise Unreadable("an array of unknown type")
    width = int(digits or 1)
    if not 1 <= width <= _LARGEST[kind]:
        raise Unreadable("an array of unknown type")
    return width


def scan_npy(source: BinaryIO, report: Report, file: str) -> None:
    """An .npy file: an array of objects holds a pickle behind its header."""
    head = source.read(8)
    size = int.from_bytes(source.read(2 if head[6:7] == b"\x01" else 4), "little")
    try:
        if not 1 <= head[6] <= 3 or not 0 < size <= 1 << 20:
            raise ValueError("the header's size is wrong")
        raw = source.read(size)
        header = ast.literal_eval(raw.decode("utf-8" if head[6] == 3 else "latin-1"))
        objects = "O" in re.sub(r"[^A-Za-z]", "", _kinds(header["descr"]))
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError, RecursionError) as error:
        report.unsafe("not-scanned", f"the array's header cannot be read: {error}", file)
        return
    if objects:
        scan(source, report, file)


def _kinds(descr: Any) -> str:
    """The type letters of a dtype's description; names of fields do not count."""
    if isinstance(descr, str):
        return descr
    return " ".join(_kinds(each[1]) if isinstance(each, tuple) and len(each) > 1 else "O" for each in descr)
