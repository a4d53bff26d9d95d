"""Archives and compressed files: what is in them is inspected too, within limits.

Nothing is unpacked under its own name.
"""

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from registry.inspection import pickles
from registry.inspection.report import MIB, Bomb, Context, DiskFull

CHUNK = MIB
Examine = Callable[[Context, Path, str, int], str | None]


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unzip(context: Context, path: Path, file: str, depth: int, examine: Examine) -> str:
    """Inspects the members; gives the sort of archive: torchscript, torch, keras, npz or zip."""
    kind = "zip"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            kind = _sort_of(names)
            if len(set(names)) < len(names):
                context.report.unsafe("not-scanned", "two members of the archive have the same name", file)
            _guard(context, file, names, sum(m.file_size for m in members), path.stat().st_size)
            for member in members:
                if stat.S_ISLNK(member.external_attr >> 16):
                    context.report.unsafe("path-escape", f"{member.filename!r} is a link", file)
                if not member.is_dir():
                    _member(context, archive, member, file, depth, kind, examine)
    except Bomb as bomb:
        context.report.unsafe("archive-bomb", str(bomb), file)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,  # encrypted, or compressed in a way that zipfile does not know
        EOFError,
        OSError,
    ) as error:
        # Loaders forgive what zipfile does not: wrong checksums, two names for one member.
        context.report.unsafe("not-scanned", f"the archive cannot be read: {error}", file)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError) as error:
        context.report.unsafe("not-scanned", f"the archive is malformed: {error}", file)
    return kind


def _member(
    context: Context,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    file: str,
    depth: int,
    kind: str,
    examine: Examine,
) -> None:
    inner = f"{file}:{member.filename}"
    if kind in ("torch", "torchscript") and re.search(r"(^|/)(data|tensors|constants)/\d+$", member.filename):
        with archive.open(member) as source:  # plain numbers: torch reads no pickle from here
            pickles.smells(io.BytesIO(source.read(64 * 1024)), context.report, inner)
        return
    with archive.open(member) as source:
        unpacked = _spill(context, source, member.compress_size)
    try:
        if kind == "torchscript" and member.filename.endswith(".pkl"):
            with unpacked.open("rb") as data:
                pickles.scan(data, context.report, inner, torchscript=True)
        else:
            examine(context, unpacked, inner, depth + 1)
    finally:
        unpacked.unlink()


def _sort_of(names: list[str]) -> str:
    if any(re.search(r"(^|/)code/.*\.py$", name) for name in names) and any(n.endswith("constants.pkl") for n in names):
        return "torchscript"
    if any(re.fullmatch(r"(?:[^/]+/)?data\.pkl", name) for name in names):
        return "torch"
    if {"config.json", "metadata.json"} <= set(names) and any(n.endswith(".h5") for n in names):
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def untar(context: Context, path: Path, file: str, depth: int, examine: Examine) -> None:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _counted(context, archive):
                name = member.name
                if member.issym() or member.islnk():
                    _check_name(context, file, member.linkname)
                    context.report.warn("archive-link", f"{name!r} is a link", file)
                elif not (member.isfile() or member.isdir()):
                    context.report.unsafe("path-escape", f"{name!r} is a device or a pipe", file)
                _check_name(context, file, name)
                if member.isfile() and (source := archive.extractfile(member)) is not None:
                    unpacked = _spill(context, source, member.size)
                    try:
                        examine(context, unpacked, f"{file}:{name}", depth + 1)
                    finally:
                        unpacked.unlink()
    except Bomb as bomb:
        context.report.unsafe("archive-bomb", str(bomb), file)
    except (tarfile.TarError, ValueError, EOFError, OSError, UnicodeError, OverflowError) as error:
        context.report.unsafe("not-scanned", f"the archive cannot be read: {error}", file)


def _counted(context: Context, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        context.members += 1
        if context.members > context.limits.members:
            raise Bomb(f"more than {context.limits.members} members")
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        yield member


def decompress(context: Context, path: Path, file: str, kind: str, depth: int, examine: Examine) -> str | None:
    """Inspects what is inside a compressed file; gives the format found there."""
    try:
        with _opened(path, kind) as source:
            unpacked = _spill(context, source, path.stat().st_size)
    except Bomb as bomb:
        context.report.unsafe("archive-bomb", str(bomb), file)
        return None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        context.report.unsafe("not-scanned", f"the {kind} stream cannot be read: {error}", file)
        return None
    try:
        return examine(context, unpacked, file, depth + 1)
    finally:
        unpacked.unlink()


def _opened(path: Path, kind: str) -> BinaryIO:
    if kind == "zlib":
        return io.BufferedReader(_Zlib(path))  # type: ignore[type-var]
    opener = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind]
    return opener(path, "rb")  # type: ignore[no-any-return,operator]


class _Zlib(io.RawIOBase):
    """A zlib stream, as joblib writes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray") -> int:  # type: ignore[override]
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(64 * 1024)
            data = self._inflate.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                raise EOFError("it ends too early")
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _guard(context: Context, file: str, names: Iterable[str], unpacked: int, packed: int) -> None:
    limits = context.limits
    for name in names:
        context.members += 1
        _check_name(context, file, name)
    if context.members > limits.members:
        raise Bomb(f"more than {limits.members} members")
    if context.unpacked + unpacked > limits.unpacked:
        raise Bomb(f"{unpacked} bytes when unpacked")
    if unpacked > limits.ratio_from and unpacked > limits.ratio * max(packed, 1):
        raise Bomb(f"{packed} bytes become {unpacked}")


def _check_name(context: Context, file: str, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\x00" in name:
        context.report.unsafe("path-escape", f"{name!r} leads out of the directory", file)


def _spill(context: Context, source: Readable, packed: int) -> Path:
    """Into a file that cannot grow beyond the limits. Raises Bomb."""
    limits, size, target = context.limits, 0, context.temporary()
    try:
        with target.open("wb") as out:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                context.unpacked += len(chunk)
                if context.unpacked > limits.unpacked:
                    raise Bomb(f"more than {limits.unpacked} bytes when unpacked")
                if size > limits.ratio_from and size > limits.ratio * max(packed, 1):
                    raise Bomb(f"{packed} bytes become more than {size}")
                out.write(chunk)
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(error)) from error
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target
