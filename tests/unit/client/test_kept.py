"""What a server keeps on its disk: the last pin, and what it must never load again."""

from pathlib import Path
from typing import Any

import pytest

from hallmark.errors import VersionRevoked
from hallmark.kept import Kept
from hallmark.results import Pin

TOLD = {"model": "a.b/c", "version": 3, "reason": "it leaks", "by": "olga", "at": "2026-01-01T00:00:00+00:00"}


def pin(version: int = 3, **changed: Any) -> Pin:
    artifact = {"digest": "sha256:" + "a" * 64, "size": 1, "filename": "m"}
    common = {"workspace": "w", "model": "a.b/c", "stage": "Production", "digest": "sha256:" + "b" * 64}
    return Pin.model_validate({**common, "version": version, "artifact": artifact, "download_url": "u", **changed})


def kept(directory: Path, target: str = "Production", workspace: str = "w", model: str = "a.b/c") -> Kept:
    return Kept(directory, workspace, model, target)


def test_a_pin_is_kept_without_its_addresses(tmp_path: Path) -> None:
    assert kept(tmp_path).pin() is None
    kept(tmp_path).remember(pin())
    assert kept(tmp_path).pin() == pin(download_url=None)
    assert kept(tmp_path, "@live").pin() is None


def test_what_was_revoked_is_known_to_every_target_and_after_a_restart(tmp_path: Path) -> None:
    for target in ("Production", "@live"):
        kept(tmp_path, target).remember(pin())
    kept(tmp_path).revoke("a.b/c", 3, VersionRevoked.told(TOLD))
    assert kept(tmp_path).pin() is None
    other = kept(tmp_path, "@live")
    held = other.pin()
    assert held is not None
    found = other.revocation(held)
    assert found is not None
    assert (found.version, found.reason, found.by, found.at) == (3, "it leaks", "olga", TOLD["at"])
    for free in (pin(4), pin(model="a-b")):
        assert other.revocation(free) is None
    assert kept(tmp_path, workspace="v").revocation(pin()) is None


@pytest.mark.parametrize("broken", [b"", b"{", b"[1]", b"null", b"\xff"])
def test_a_broken_note_of_a_revocation_still_counts(tmp_path: Path, broken: bytes) -> None:
    kept(tmp_path).revoke("a.b/c", 3, VersionRevoked.told(TOLD))
    [file] = (tmp_path / "revoked").iterdir()
    file.write_bytes(broken)
    found = kept(tmp_path).revocation(pin())
    assert found is not None
    assert found.version == 3


def test_a_disk_that_takes_nothing_makes_nothing_forgotten(tmp_path: Path) -> None:
    (tmp_path / "revoked").write_text("a file where the directory should be")
    one = kept(tmp_path)
    one.revoke("a.b/c", 3, VersionRevoked.told(TOLD))
    assert one.revocation(pin()) is not None
