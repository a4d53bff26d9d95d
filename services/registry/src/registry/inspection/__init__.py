"""Artifacts inspected without being loaded, in a process of their own with limits of time and memory.

`Inspector.run(job)` downloads, verifies and inspects; `inspect` looks at files that are here already;
`contradiction` compares a declared schema with the file's own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.inspection.columns import contradiction
    from registry.inspection.jobs import Examined, ExaminedPart, Job, Part
    from registry.inspection.look import inspect
    from registry.inspection.report import SCANNER, Limits
    from registry.inspection.worker import InspectionFailed, Inspector

__all__ = [
    "SCANNER",
    "Examined",
    "ExaminedPart",
    "InspectionFailed",
    "Inspector",
    "Job",
    "Limits",
    "Part",
    "contradiction",
    "inspect",
]
_HOMES = {
    "columns": ("contradiction",),
    "jobs": ("Examined", "ExaminedPart", "Job", "Part"),
    "look": ("inspect",),
    "report": ("SCANNER", "Limits"),
    "worker": ("InspectionFailed", "Inspector"),
}


def __getattr__(name: str) -> Any:
    """On first use: the service needs no ONNX parser, the warm process none of the service's libraries."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
