"""The signer in a process of its own signs envelopes too, and nothing else that way."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_rows import proofs_of, registration, row
from tests.support.growing import Growing
from tests.support.signing import ORIGIN, SignerProcess
from tests.support.tlog_copy import root_of

from audit.note import Checkpoint
from audit.out.dsse import EXPORT, seal, unseal
from audit.out.evidence.bundle import VERIFIER, write_bundle
from audit.out.evidence.dossier import dossier_of
from audit.tlog.signer import State
from audit.tlog.signing import RemoteSigner, SignerUnavailable

LOG = Growing(ORIGIN)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SignerProcess]:
    process = SignerProcess(tmp_path, token="a-secret-of-the-operator")
    State(process.state, ORIGIN).create()
    process.start()
    yield process
    process.stop()


async def test_it_signs_envelopes_and_nothing_else(process: SignerProcess) -> None:
    signer = RemoteSigner(ORIGIN, process.address, process.token, seconds=20)
    try:
        envelope = await seal(EXPORT, {"a": 1}, signer)
        assert unseal(envelope, EXPORT, signer.vkeys[0]) == {"a": 1}
        # A checkpoint must go the way that looks at what was signed before.
        for text in (LOG.checkpoint(5).text(), "", " DSSEv1 "):
            with pytest.raises(SignerUnavailable, match="400"):
                await signer.sign_bytes(text.encode())
    finally:
        await signer.close()


async def test_it_signs_for_nobody_without_the_token(process: SignerProcess) -> None:
    signer = RemoteSigner(ORIGIN, process.address, "x" * 40, seconds=20)
    try:
        with pytest.raises(SignerUnavailable):
            await seal(EXPORT, {"a": 1}, signer)
    finally:
        await signer.close()


async def test_a_bundle_with_both_keys_of_the_process_is_verified(process: SignerProcess, tmp_path: Path) -> None:
    """Ed25519 and ML-DSA-44 by the service's own code; the verifier is written apart from it."""
    log = [row(registration(), n) for n in range(3)]
    head = Checkpoint(ORIGIN, 3, root_of([one.stored.leaf_hash for one in log]))
    signer = RemoteSigner(ORIGIN, process.address, process.token, seconds=20)
    try:
        note = f"{head.text()}\n{await signer.sign(head, 0, [])}"
        target = io.BytesIO()
        of = dossier_of("default", "fraud", 2, log, {"keys": []})
        given: dict[str, Any] = {"proofs": proofs_of(log), "vkeys": signer.vkeys, "jwks": {"keys": []}}
        await write_bundle(target, of, head=head, note=note, signer=signer, **given)
        keys = signer.vkeys
    finally:
        await signer.close()
    assert len(keys) == 2
    (tmp_path / "bundle.zip").write_bytes(target.getvalue())
    (tmp_path / "verifier.py").write_bytes(VERIFIER.read_bytes())
    for name, key in (("both", "\n".join(keys)), ("one", keys[0])):
        (tmp_path / name).write_text(key)
        command = [sys.executable, "-I", "verifier.py", "bundle.zip", "--key", name]
        done = subprocess.run(  # noqa: ASYNC221 nothing else is to run meanwhile
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.startswith("OK: 3 entries"), done.stdout
