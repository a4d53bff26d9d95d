"""What a signer refuses, and the request it is asked with."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tests.support.growing import Growing

from audit.note import Checkpoint, MldsaSigner, NoteError, NoteSigner, Signer, open_note
from audit.tlog import addition
from audit.tlog.addition import Addition
from audit.tlog.archive import Contradiction
from audit.tlog.signing import Behind, Head, LocalSigner, Overtaken, check_extension, sign_extension

ORIGIN = "hallmark.example/log/test"
LOG = Growing(ORIGIN)
FORGED = Growing(ORIGIN, fork=8)
CHECKPOINT = LOG.checkpoint(20)


def local() -> LocalSigner:
    keys: list[NoteSigner] = [
        Signer(ORIGIN, Ed25519PrivateKey.generate()),
        MldsaSigner(ORIGIN, MLDSA44PrivateKey.generate()),
    ]
    return LocalSigner(keys, ORIGIN)


def head(log: Growing, size: int) -> Head:
    return Head(size, log.checkpoint(size).root)


@pytest.mark.parametrize("old", [0, 1, 7, 8, 13, 19, 20])
def test_what_extends_the_last_tree_passes(old: int) -> None:
    check_extension(head(LOG, old), CHECKPOINT, old, LOG.proof(old, 20))


@pytest.mark.parametrize("old", [9, 13, 19])
def test_another_history_does_not_pass_with_any_proof(old: int) -> None:
    for proof in (LOG.proof(old, 20), FORGED.proof(old, 20), [], [bytes(32)]):
        with pytest.raises(Contradiction):
            check_extension(head(LOG, old), FORGED.checkpoint(20), old, proof)


def test_a_smaller_tree_a_second_root_and_a_proof_from_elsewhere_do_not_pass() -> None:
    with pytest.raises(Overtaken, match="19 entries, but 20") as overtaken:
        check_extension(head(LOG, 20), LOG.checkpoint(19), 19, [])
    assert overtaken.value.size == 20
    with pytest.raises(Contradiction, match="another root"):
        check_extension(head(LOG, 20), FORGED.checkpoint(20), 20, [])
    with pytest.raises(Contradiction, match="another root"):
        check_extension(Head(), Checkpoint(ORIGIN, 0, bytes(32)), 0, [])
    with pytest.raises(Behind) as behind:
        check_extension(head(LOG, 13), CHECKPOINT, 12, LOG.proof(12, 20))
    assert behind.value.size == 13


async def test_the_local_signer_signs_with_both_keys_and_the_same_tree_again() -> None:
    signer = local()
    for _ in range(2):
        lines = await signer.sign(CHECKPOINT, 0, [])
        note = f"{CHECKPOINT.text()}\n{lines}"
        assert [open_note(note, vkey) for vkey in signer.vkeys] == [CHECKPOINT, CHECKPOINT]
        assert [len(line) > 1000 for line in lines.splitlines()] == [False, True]
    assert await signer.sign(LOG.checkpoint(33), 20, LOG.proof(20, 33))


async def test_the_local_signer_refuses_against_what_it_signed() -> None:
    signer = local()
    await signer.sign(CHECKPOINT, 0, [])
    with pytest.raises(Overtaken):
        await signer.sign(LOG.checkpoint(19), 19, [])
    with pytest.raises(Contradiction, match="another root"):
        await signer.sign(FORGED.checkpoint(20), 20, [])
    with pytest.raises(Contradiction, match="proof"):
        await signer.sign(FORGED.checkpoint(21), 20, FORGED.proof(20, 21))
    assert await signer.sign(LOG.checkpoint(21), 20, LOG.proof(20, 21))


async def test_a_proof_is_made_from_where_the_signer_stands() -> None:
    asked: list[int] = []

    class Ahead(LocalSigner):
        async def sign(self, checkpoint: Checkpoint, old: int, proof: object) -> str:
            check_extension(head(LOG, 13), checkpoint, old, list(proof) if isinstance(proof, list) else [])
            return "signed"

    async def proof_for(old: int) -> list[bytes]:
        asked.append(old)
        return LOG.proof(old, 20)

    assert await sign_extension(Ahead([], ORIGIN), CHECKPOINT, 5, proof_for) == "signed"
    assert asked == [5, 13]


@pytest.mark.parametrize("old", [0, 5, 1 << 40])
def test_a_request_is_read_as_it_was_written(old: int) -> None:
    proof = LOG.proof(5, 20)
    body = addition.write(old, proof, CHECKPOINT.text())
    assert addition.read(body) == Addition(old, tuple(proof), CHECKPOINT.text())


def test_the_example_of_the_specification_is_read() -> None:
    body = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
"""
    read = addition.read(body.encode())
    assert (read.old, len(read.proof), read.checkpoint.count("\n")) == (20852014, 2, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"old\n\nx\n",
        b"old 01\n\nx\n",
        b"old -1\n\nx\n",
        b"old 1",
        b"new 1\n\nx\n",
        b"old 1\nAAAA\n\nx\n",
        b"old 1\n" + b"A" * 42 + b"B=\n\nx\n",
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\nx\n",
        b"old 1\n\n\xff",
    ],
)
def test_a_malformed_request_is_refused(body: bytes) -> None:
    with pytest.raises(NoteError):
        addition.read(body)


@pytest.mark.parametrize(
    ("status", "kind", "body", "size"),
    [
        (409, "text/x.tlog.size", b"7\n", 7),
        (409, "text/plain", b"7\n", None),
        (422, "text/x.tlog.size", b"7\n", None),
        (409, "text/x.tlog.size", b"07\n", None),
        (409, "text/x.tlog.size", b"\xff", None),
    ],
)
def test_the_size_of_a_conflict(status: int, kind: str, body: bytes, size: int | None) -> None:
    assert addition.conflict(status, kind, body) == size
