"""Verifiers that are not ours: Go's own packages (tests/support/go) and tlog-scales."""

import functools
import json
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint as ForeignCheckpoint

GO = Path(__file__).with_name("go")


@functools.cache
def go_verifier() -> Path:
    """The program of tests/support/go, built once in a run; the test is skipped where Go or its module is missing."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    program = Path(tempfile.mkdtemp(prefix="hallmark-go-")) / "verify"
    fetched = subprocess.run([go, "mod", "download"], cwd=GO, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"the Go module cannot be had: {fetched.stderr.strip()[-300:]}")
    subprocess.run([go, "build", "-mod=readonly", "-buildvcs=false", "-o", program, "."], cwd=GO, check=True)
    return program


def go_check(
    note: str,
    vkeys: Sequence[str],
    inclusions: Sequence[tuple[int, bytes, Sequence[bytes]]] = (),
    consistencies: Sequence[tuple[int, bytes, Sequence[bytes]]] = (),
) -> dict[str, Any]:
    """What Go reads in the note: origin, size, root, signed_by.

    `inclusions`: (index, leaf hash, proof); `consistencies`: (older size, its root, proof).

    Raises:
        ValueError: Go refuses; its words.
    """

    def spelt(hashes: Sequence[bytes]) -> list[str]:
        return [b64encode(node).decode() for node in hashes]

    document = {
        "note": note,
        "vkeys": list(vkeys),
        "inclusions": [
            {"index": index, "leaf_hash": b64encode(leaf).decode(), "proof": spelt(proof)}
            for index, leaf, proof in inclusions
        ],
        "consistencies": [
            {"size": size, "root": b64encode(root).decode(), "proof": spelt(proof)}
            for size, root, proof in consistencies
        ],
    }
    return _said(json.dumps(document))


def go_log(directory: Path, vkeys: Sequence[str]) -> dict[str, Any]:
    """What Go reads in the checkpoint of a copied log (C2SP tlog-tiles), once it has hashed all that lies there again.

    `vkeys`: of Ed25519; Go's note package knows no ML-DSA.

    Raises:
        ValueError: Go refuses; its words.
    """
    return _said("", str(directory), *vkeys)


def _said(document: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [go_verifier(), *arguments], input=document, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        assert done.returncode == 1, done.stderr
        raise ValueError(done.stderr.strip())
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def scales_check(note: str, vkey: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a note, as tlog-scales verifies it. Raises whatever it raises."""
    checkpoint = ForeignCheckpoint.from_text(note)
    checkpoint.verify(Vkey.from_string(vkey))
    return checkpoint.origin, checkpoint.size, checkpoint.root_hash


def scales_vkey(vkey: Vkey) -> str:
    """The verifier key line, as tlog-scales writes it."""
    return str(vkey.serialize())  # type: ignore[no-untyped-call]
