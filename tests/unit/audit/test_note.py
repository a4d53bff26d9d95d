"""Checkpoints as C2SP signed-note and tlog-checkpoint define them."""

from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.note import Checkpoint, NoteError, Signer, is_signed_by, key_id, open_note, parse_vkey

ORIGIN = "hallmark.example/log/test"
ROOT = sha256(b"root").digest()
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
# The example of Go's sumdb note package, which C2SP signed-note describes.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def test_a_foreign_key_and_signature_fit_our_reading_of_the_format() -> None:
    key = parse_vkey(GO_VKEY)
    raw = b64decode(GO_SIGNATURE)
    assert key.name == "PeterNeumann"
    assert raw[:4] == key.key_id == bytes.fromhex("c74f20a3")
    key.verify(raw[4:], GO_TEXT)


def test_a_note_has_the_shape_of_the_specification() -> None:
    note = SIGNER.sign(7, ROOT)
    origin, size, root, empty, signature, end = note.split("\n")
    assert (origin, size, root, empty, end) == (ORIGIN, "7", b64encode(ROOT).decode(), "", "")
    dash, name, encoded = signature.split(" ")
    raw = b64decode(encoded)
    assert (dash, name, len(raw)) == ("\N{EM DASH}", ORIGIN, 4 + 64)
    public = b64decode(SIGNER.vkey.split("+", 2)[2])
    assert public[0] == 1
    assert raw[:4] == sha256(ORIGIN.encode() + b"\n" + public).digest()[:4] == key_id(ORIGIN, public[1:])
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(raw[4:], f"{origin}\n{size}\n{root}\n".encode())
    assert open_note(note, SIGNER.vkey) == Checkpoint(ORIGIN, 7, ROOT)


def test_every_changed_byte_is_refused() -> None:
    note = SIGNER.sign(70, ROOT).encode()
    for position in range(len(note)):
        for bit in (1, 4, 32):
            bent = bytearray(note)
            bent[position] ^= bit
            assert not is_signed_by(bent.decode(errors="replace"), SIGNER.vkey), (position, bit)
        assert not is_signed_by((note[:position] + note[position + 1 :]).decode(errors="replace"), SIGNER.vkey)


def test_other_signatures_are_passed_over_and_another_key_is_refused() -> None:
    other = Signer(ORIGIN, Ed25519PrivateKey.generate())
    witness = Signer("witness.example", Ed25519PrivateKey.generate())
    note = SIGNER.sign(1, ROOT)
    text = Checkpoint(ORIGIN, 1, ROOT).text()
    assert is_signed_by(note + witness.line(text), SIGNER.vkey)
    assert not is_signed_by(note, other.vkey)
    assert not is_signed_by(note, witness.vkey)
    assert is_signed_by(note + other.line(text), other.vkey)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n01\n{b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n-1\n{b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n٣\n{b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n1\nnot base64\n",
        f"elsewhere.example\n1\n{b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n1\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        open_note(f"{text}\n{SIGNER.line(text)}", SIGNER.vkey)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        SIGNER.vkey.replace("+", "+0", 1),
        SIGNER.vkey[:-1],
        SIGNER.vkey.replace("hallmark", "hallmork"),
        "name+00000000+" + b64encode(b"\x01" + bytes(31)).decode(),
    ],
)
def test_a_malformed_key_line_is_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        parse_vkey(vkey)


def test_the_same_tree_gives_the_same_note() -> None:
    assert SIGNER.sign(3, ROOT) == SIGNER.sign(3, ROOT)
