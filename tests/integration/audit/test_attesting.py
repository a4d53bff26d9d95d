"""The publisher with a signer in another process, a witness and a time stamping authority: all of it real."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.authority import LocalAuthority
from tests.support.foreign import go_check, scales_check
from tests.support.growing import Growing
from tests.support.signing import ORIGIN, SignerProcess
from tests.support.witness import LocalWitness

from audit import tables
from audit.note import parse_vkey, verify_note
from audit.tlog.archive import Contradiction
from audit.tlog.attesting import attestation, stamp_key
from audit.tlog.calling import Caller
from audit.tlog.publisher import Publisher
from audit.tlog.signer import State
from audit.tlog.signing import CheckpointSigner, RemoteSigner, SignerUnavailable, keys_of
from audit.tlog.stamps import Authority, Stamper, read_stamp
from audit.tlog.witness import NoQuorum, Witness, Witnesses
from contracts.topics import AUDIT_EVENTS
from kit.events import EventLog

from .conftest import Harness, record, story


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SignerProcess]:
    process = SignerProcess(tmp_path / "signer")
    State(process.state, ORIGIN).create()
    process.start()
    yield process
    process.stop()


@pytest.fixture
def witness(process: SignerProcess) -> Iterator[LocalWitness]:
    keys = process.directory / "keys"
    vkeys = [key.vkey for key in keys_of(ORIGIN, keys / "checkpoint.jwk", keys / "checkpoint.mldsa44.pem")]
    witness = LocalWitness("witness.example/w1", *vkeys)
    yield witness
    witness.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[LocalAuthority]:
    authority = LocalAuthority(tmp_path / "tsa")
    yield authority
    authority.stop()


def publisher(
    log: Harness, signer: CheckpointSigner, witness: LocalWitness, authority: LocalAuthority, caller: Caller
) -> Publisher:
    witnesses = Witnesses([Witness(witness.url, witness.vkey, caller)], 1, caller, lambda: 0.0)
    stamper = Stamper(authority.url, Authority.read(authority.roots.read_bytes()), caller, 3600)
    events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    given = attestation(witnesses, stamper, log.archive)
    return Publisher(log.db, events, log.archive, signer, every_seconds=0.1, publish_seconds=0, attestation=given)


async def test_a_checkpoint_is_signed_cosigned_and_stamped(
    audit: Harness, process: SignerProcess, witness: LocalWitness, authority: LocalAuthority
) -> None:
    signer, caller = RemoteSigner(ORIGIN, process.address), Caller(("127.0.0.0/8",), 10)
    publishing = publisher(audit, signer, witness, authority, caller)
    events = story()
    try:
        for envelope in events[:3]:
            await audit.ledger.append([record(envelope)])
            note = (await publishing.current()).note
        for vkey in (*publishing.vkeys, witness.vkey):
            assert scales_check(note, vkey)[:2] == (ORIGIN, 3)
        assert go_check(note, publishing.vkeys[:1])["size"] == 3
        assert len(verify_note(note, [parse_vkey(v) for v in (*publishing.vkeys, witness.vkey)]).keys) == 3
        token = await audit.archive.read(stamp_key(1))
        first = await audit.archive.read("checkpoints/1")
        assert token is not None
        assert first is not None
        assert read_stamp(token, first.decode(), Authority.read(authority.roots.read_bytes()))
        assert await audit.archive.read(stamp_key(3)) is None  # an hour has not passed

        witness.trouble.append((503, {}, b""))
        await audit.ledger.append([record(events[3])])
        with pytest.raises(NoQuorum):
            await publishing.current()
        newest = await publishing.newest()
        assert newest is not None
        assert newest.checkpoint.size == 3
        process.kill()
        await audit.ledger.append([record(events[4])])
        with pytest.raises(SignerUnavailable):
            await publishing.current()
    finally:
        await signer.close()
        await caller.close()


async def test_who_owns_database_and_store_cannot_sign_another_history(
    audit: Harness, process: SignerProcess, witness: LocalWitness, authority: LocalAuthority
) -> None:
    """Nothing of what was published is left, but the signer remembers."""
    signer, caller = RemoteSigner(ORIGIN, process.address), Caller(("127.0.0.0/8",), 10)
    state = State(process.state, ORIGIN)
    await audit.ledger.append([record(envelope) for envelope in story()[:2]])
    try:
        await signer.load()
        # As if a log of these many other entries had been signed before.
        state.extend(Growing(ORIGIN).checkpoint(2), 0, [])
        with pytest.raises(Contradiction, match="another root"):
            await publisher(audit, signer, witness, authority, caller).current()
        state.extend(Growing(ORIGIN).checkpoint(5), 2, Growing(ORIGIN).proof(2, 5))
        with pytest.raises(Contradiction, match="2 entries, but 5"):
            await publisher(audit, signer, witness, authority, caller).current()
    finally:
        await signer.close()
        await caller.close()
    assert await audit.archive.read("checkpoint") is None
    assert witness.statuses == []
