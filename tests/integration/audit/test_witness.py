"""Witnesses that are strict about C2SP tlog-witness: they cosign what grew, and never two histories."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from structlog.testing import capture_logs
from tests.support.foreign import go_check, scales_check
from tests.support.growing import Growing
from tests.support.witness import LocalWitness

from audit.note import MldsaSigner, Signer, parse_vkey, verify_note
from audit.tlog.calling import Caller
from audit.tlog.signing import LocalSigner, ProofFor
from audit.tlog.witness import Ahead, NoQuorum, SplitView, Witness, WitnessAway, WitnessError, Witnesses

ORIGIN = "hallmark.example/log/witnessed"
LOG = Growing(ORIGIN)
FORGED = Growing(ORIGIN, fork=8)
PLAIN = Signer(ORIGIN, Ed25519PrivateKey.generate())
QUANTUM = MldsaSigner(ORIGIN, MLDSA44PrivateKey.generate())


async def note_of(size: int, log: Growing = LOG) -> str:
    signer = LocalSigner([PLAIN, QUANTUM], ORIGIN)
    return f"{log.checkpoint(size).text()}\n{await signer.sign(log.checkpoint(size), 0, [])}"


def proofs(size: int, log: Growing = LOG, asked: list[int] | None = None) -> ProofFor:
    async def proof_for(old: int) -> list[bytes]:
        if asked is not None:
            asked.append(old)
        return log.proof(old, size)

    return proof_for


@pytest.fixture
def local() -> Iterator[LocalWitness]:
    witness = LocalWitness("witness.example/w1", PLAIN.vkey, post_quantum=True)
    yield witness
    witness.stop()


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    caller = Caller(("127.0.0.0/8",), 5)
    yield caller
    await caller.close()


@pytest.mark.parametrize("post_quantum", [False, True])
async def test_a_cosignature_of_either_kind_verifies(local: LocalWitness, caller: Caller, post_quantum: bool) -> None:
    vkey = local.quantum_vkey if post_quantum else local.vkey
    witness = Witness(local.url + "/", vkey, caller)
    asked: list[int] = []
    for size in (0, 1, 8, 8, 100):
        note = await note_of(size)
        assert not witness.has_cosigned(note)
        line = await witness.cosign(note, proofs(size, LOG, asked))
        assert witness.has_cosigned(note + line)
        assert scales_check(note + line, vkey)[1] == size
        assert verify_note(note + line, [parse_vkey(vkey)]).lines == {vkey: line}  # and not the line of its other key
        assert go_check(note + line, [PLAIN.vkey])["size"] == size
    assert local.statuses == [200] * 5
    assert asked == [1, 8]  # a proof is read only where there is something to prove


async def test_after_a_restart_the_witness_says_where_to_begin(local: LocalWitness, caller: Caller) -> None:
    await Witness(local.url, local.vkey, caller).cosign(await note_of(20), proofs(20))
    asked: list[int] = []
    assert await Witness(local.url, local.vkey, caller).cosign(await note_of(50), proofs(50, LOG, asked))
    assert (local.statuses, asked) == ([200, 409, 200], [20])
    assert await Witness(local.url, local.vkey, caller).cosign(await note_of(50), proofs(50))
    assert local.statuses[3:] == [409, 200]


@pytest.mark.parametrize("size", [20, 21, 50])
@pytest.mark.parametrize("knows", [False, True], ids=["restarted", "running"])
async def test_another_history_is_never_cosigned(local: LocalWitness, caller: Caller, size: int, knows: bool) -> None:
    witness = Witness(local.url, local.vkey, caller)
    await witness.cosign(await note_of(20), proofs(20))
    if not knows:
        witness = Witness(local.url, local.vkey, caller)
    with pytest.raises(SplitView):
        await witness.cosign(await note_of(size, FORGED), proofs(size, FORGED))
    assert local.size(ORIGIN) == 20
    assert await witness.cosign(await note_of(50), proofs(50))


async def test_an_older_tree_is_not_cosigned(local: LocalWitness, caller: Caller) -> None:
    """As after a restore of the database from a backup."""
    await Witness(local.url, local.vkey, caller).cosign(await note_of(20), proofs(20))
    for witness in (Witness(local.url, local.vkey, caller),) * 2:
        with pytest.raises(Ahead, match="20 entries"):
            await witness.cosign(await note_of(19), proofs(19))


async def test_a_log_it_does_not_know_and_a_key_it_does_not_trust(caller: Caller) -> None:
    others = Signer("elsewhere.example", Ed25519PrivateKey.generate()), Signer(ORIGIN, Ed25519PrivateKey.generate())
    for other, status in zip(others, ("404", "403"), strict=True):
        local = LocalWitness("witness.example/w2", other.vkey)
        with pytest.raises(WitnessError, match=status):
            await Witness(local.url, local.vkey, caller).cosign(await note_of(5), proofs(5))
        local.stop()


@pytest.mark.parametrize(
    ("status", "headers", "body", "error"),
    [
        (500, {}, b"", WitnessAway),
        (429, {}, b"", WitnessAway),
        (307, {"location": "/w/add-checkpoint"}, b"", WitnessError),
        (200, {}, b"", WitnessError),
        (200, {}, b"nonsense\n", WitnessError),
        (200, {}, b"\xff\n", WitnessError),
        (200, {}, "— witness.example/w1 AAAAAAAA\n".encode(), WitnessError),
        (200, {}, b"x" * 300_000, WitnessAway),
        (409, {"content-type": "text/x.tlog.size"}, b"many\n", SplitView),
        (422, {}, b"", SplitView),
    ],
)
async def test_a_bad_answer_is_no_cosignature(
    local: LocalWitness, caller: Caller, status: int, headers: dict[str, str], body: bytes, error: type[WitnessError]
) -> None:
    local.trouble.append((status, headers, body))
    witness = Witness(local.url, local.vkey, caller)
    with pytest.raises(WitnessError) as raised:
        await witness.cosign(await note_of(5), proofs(5))
    assert type(raised.value) is error
    assert await witness.cosign(await note_of(5), proofs(5))


async def test_a_cosignature_of_another_checkpoint_is_refused(local: LocalWitness, caller: Caller) -> None:
    line = await Witness(local.url, local.vkey, caller).cosign(await note_of(5), proofs(5))
    local.trouble.append((200, {}, line.encode()))
    with pytest.raises(WitnessError, match="wrong"):
        await Witness(local.url, local.vkey, caller).cosign(await note_of(6), proofs(6))


async def test_endless_conflicts_end(local: LocalWitness, caller: Caller) -> None:
    local.trouble += [(409, {"content-type": "text/x.tlog.size"}, b"%d\n" % n) for n in (1, 2, 3, 4)]
    with pytest.raises(WitnessError, match="all the time"):
        await Witness(local.url, local.vkey, caller).cosign(await note_of(50), proofs(50))
    assert len(local.statuses) == 3


async def test_a_silent_witness_is_given_up(local: LocalWitness) -> None:
    local.receiver.answer = lambda _: local.receiver.held((200, {}, b""))
    caller = Caller(("127.0.0.0/8",), 0.3)
    with pytest.raises(WitnessAway, match=r"within 0\.3 s"):
        await Witness(local.url, local.vkey, caller).cosign(await note_of(5), proofs(5))
    await caller.close()


async def test_an_address_nobody_allowed_is_not_called(local: LocalWitness) -> None:
    caller = Caller((), 5)
    with pytest.raises(WitnessAway, match="HALLMARK_ATTESTATION_ALLOW"):
        await Witness(local.url, local.vkey, caller).cosign(await note_of(5), proofs(5))
    assert local.receiver.hits == []
    await caller.close()


async def test_a_quorum_of_witnesses(caller: Caller) -> None:
    locals_ = [LocalWitness(f"w{n}.example", PLAIN.vkey) for n in range(3)]
    now = [0.0]
    witnesses = Witnesses([Witness(w.url, w.vkey, caller) for w in locals_], 2, caller, lambda: now[0])
    vkeys = [w.vkey for w in locals_]

    def signed(note: str) -> list[str]:
        return [vkey for vkey in vkeys if vkey in verify_note(note, [parse_vkey(v) for v in vkeys]).lines]

    try:
        note = await note_of(15)
        full = await witnesses.cosign(note, proofs(15))
        assert full.startswith(note)
        assert signed(full) == vkeys
        assert await witnesses.cosign(full, proofs(15)) == full  # nobody is asked twice
        assert [len(w.statuses) for w in locals_] == [1, 1, 1]

        locals_[0].trouble.append((503, {}, b""))
        assert signed(await witnesses.cosign(await note_of(16), proofs(16))) == vkeys[1:]
        locals_[1].trouble.append((503, {}, b""))
        with pytest.raises(NoQuorum, match=r"1 of 2 .* w0\.example, w1\.example"):
            await witnesses.cosign(await note_of(17), proofs(17))
        assert len(locals_[0].statuses) == 2  # it rests
        now[0] = 2.0
        assert signed(await witnesses.cosign(await note_of(17), proofs(17))) == vkeys

        with capture_logs() as said, pytest.raises(NoQuorum):
            await witnesses.cosign(await note_of(19, FORGED), proofs(19, FORGED))
        assert [entry["log_level"] for entry in said] == ["critical"] * 3
    finally:
        for local in locals_:
            local.stop()


async def test_without_a_quorum_a_checkpoint_goes_out_as_it_is(caller: Caller) -> None:
    local = LocalWitness("w.example", PLAIN.vkey)
    local.stop()
    note = await note_of(5)
    assert await Witnesses([Witness(local.url, local.vkey, caller)], 0, caller).cosign(note, proofs(5)) == note
    assert await Witnesses([], 0, caller).cosign(note, proofs(5)) == note


async def test_racing_histories_get_one_cosigned(local: LocalWitness, caller: Caller) -> None:
    """Two ingesters with two databases: whatever the witness cosigned is one history."""

    async def publish(log: Growing) -> set[tuple[int, bytes]]:
        witness, done = Witness(local.url, local.vkey, caller), set()
        for size in range(9, 40):
            try:
                await witness.cosign(await note_of(size, log), proofs(size, log))
            except WitnessError:
                continue
            done.add((size, log.checkpoint(size).root))
        return done

    ours, theirs = await asyncio.gather(publish(LOG), publish(FORGED))
    assert bool(ours) != bool(theirs)
