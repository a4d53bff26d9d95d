"""What a server keeps on its disk: the last pin of a target, and which versions it heard are revoked."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hallmark.errors import VersionRevoked
from hallmark.results import Pin


class Kept:
    """Of one target of one model, in the cache `directory`; revocations are shared by all targets there."""

    def __init__(self, directory: Path, workspace: str, model: str, target: str) -> None:
        self._workspace = workspace
        self._pin = directory / "pins" / f"{workspace}.{_file_name(model)}.{target}.json"
        self._revoked = directory / "revoked"
        self._heard: dict[Path, VersionRevoked] = {}  # a full disk must not make it forgotten

    def remember(self, pin: Pin) -> None:
        """Keeps the pin for a start without the registry."""
        _write(self._pin, without_addresses(pin).model_dump(mode="json"))

    def pin(self) -> Pin | None:
        return read_pin(self._pin)

    def revoke(self, model: str, version: int, revoked: VersionRevoked) -> None:
        """`model` is the identity. What was revoked once is for ever: a start without the registry must know."""
        file = self._file(model, version)
        self._heard[file] = revoked
        _write(file, {"detail": revoked.detail, **revoked.extra})
        pin = self.pin()
        if pin is not None and (pin.model, pin.version) == (model, version):
            with contextlib.suppress(OSError):
                self._pin.unlink(missing_ok=True)

    def revocation(self, pin: Pin) -> VersionRevoked | None:
        """What was heard of the pin's version, if it is revoked."""
        file = self._file(pin.model, pin.version)
        if file in self._heard:
            return self._heard[file].again()
        if not file.exists():
            return None
        try:
            told: dict[str, Any] = dict(json.loads(file.read_bytes()))
        except (OSError, ValueError, TypeError):
            told = {}  # that it is there says enough
        detail = str(told.pop("detail", f"version {pin.version} was revoked"))
        return VersionRevoked(detail, extra={"model": pin.model, "version": pin.version, **told})

    def _file(self, model: str, version: int) -> Path:
        return self._revoked / f"{self._workspace}.{_file_name(model)}.{version}.json"


def read_pin(file: Path) -> Pin | None:
    """None where there is no file, or no pin in it."""
    try:
        return Pin.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def without_addresses(pin: Pin) -> Pin:
    """They expire."""
    return pin.model_copy(update={"download_url": None, "files": ()})


def _write(file: Path, value: dict[str, Any]) -> None:
    """All of it or nothing; a disk that takes nothing is no reason to stop serving."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{os.getpid()}.new")
        scratch.write_text(json.dumps(value))
        scratch.replace(file)


def _file_name(model: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in model)
