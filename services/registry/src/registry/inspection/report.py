"""What one inspection has found so far, and the limits it must keep."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from contracts.model import Column, Finding, Inspection, Severity, Signature

SCANNER = f"hallmark-inspection/1 picklescan/{version('picklescan')}"
MAX_FINDINGS = 200
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one job may use. Sizes in bytes, times in seconds."""

    # Memory on top of what the warm process has; parsing an ONNX file takes about three times its size.
    memory: int = 2 << 30
    # Time for the inspection; a download gets more, by its size.
    seconds: float = 120.0
    slowest_download: int = 4 * MIB  # bytes a second
    scratch: int = 4 << 30  # downloaded for inspection, all files together
    unpacked: int = 4 << 30  # out of archives and compressed files, all together
    ratio: int = 1_000  # unpacked to packed, above `ratio_from` bytes: zeros of a sparse model compress well too
    ratio_from: int = 64 * MIB
    members: int = 20_000
    depth: int = 3  # an archive in an archive in an archive
    message: int = 512 * MIB  # the largest ONNX file to parse


@dataclass
class Report:
    """Collects; the worst findings stay when there are too many."""

    findings: list[Finding] = field(default_factory=list)
    signatures: dict[str, Signature] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    _seen: set[tuple[str, str, str | None]] = field(default_factory=set)

    def unsafe(self, code: str, detail: str, file: str | None = None) -> None:
        self._add(Severity.UNSAFE, code, detail, file)

    def warn(self, code: str, detail: str, file: str | None = None) -> None:
        self._add(Severity.WARNING, code, detail, file)

    def info(self, code: str, detail: str, file: str | None = None) -> None:
        self._add(Severity.INFO, code, detail, file)

    def _add(self, severity: Severity, code: str, detail: str, file: str | None) -> None:
        detail, file = text(detail), None if file is None else line(file)
        if (code, detail, file) in self._seen:
            return
        if len(self.findings) >= MAX_FINDINGS:
            if severity is not Severity.UNSAFE:
                return
            lesser = next((f for f in reversed(self.findings) if f.severity is not Severity.UNSAFE), None)
            if lesser is None:
                return
            self.findings.remove(lesser)
        self._seen.add((code, detail, file))
        self.findings.append(Finding(severity=severity, code=code, detail=detail, file=file))

    def result(self, kind: str | None, signature: Signature) -> Inspection:
        return Inspection(format=kind, signature=signature, findings=tuple(self.findings), scanner=SCANNER)


@dataclass
class Context:
    """One inspection. `sizes` has the real size of every file of which only the head is on disk."""

    report: Report
    limits: Limits
    scratch: Path
    sizes: Mapping[str, int] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    unpacked: int = 0
    members: int = 0
    made: int = 0

    def temporary(self) -> Path:
        self.made += 1
        return self.scratch / f"unpacked-{self.made}"


class Bomb(Exception):
    """More comes out of it than the limits allow."""


class DiskFull(Exception):
    """This machine's fault, not the file's."""


def line(value: object) -> str:
    """As one line that a contract takes."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", str(value))[:500] or "?"


def text(value: object) -> str:
    return re.sub(r"[\x00\ud800-\udfff]", "?", str(value))[:2_000]


def column(name: str, dtype: str, shape: tuple[int | None, ...] = ()) -> Column:
    return Column(name=line(name), dtype=line(dtype), shape=shape)
