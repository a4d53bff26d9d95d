"""Notes with keys of several kinds: ML-DSA-44 beside Ed25519, and cosignatures of witnesses."""

import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tests.support.foreign import go_check, scales_check, scales_vkey
from tlog_scales.signing import MLDSA44CosignatureSigner
from tlog_scales.tlog import Checkpoint as ForeignCheckpoint

from audit import merkle
from audit.note import (
    Checkpoint,
    MldsaSigner,
    NoteError,
    Signer,
    is_signed_by,
    open_note,
    parse_vkey,
    split_note,
    verify_note,
)

ORIGIN = "hallmark.example/log/test"
ROOT = sha256(b"root").digest()
TEXT = Checkpoint(ORIGIN, 7, ROOT).text()
PLAIN = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
QUANTUM = MldsaSigner(ORIGIN, MLDSA44PrivateKey.from_seed_bytes(bytes(range(32))))
NOTE = f"{TEXT}\n{PLAIN.line(TEXT)}{QUANTUM.line(TEXT)}"
# The example of C2SP tlog-cosignature.
WITNESSED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def cosigned(name: str, key: Ed25519PrivateKey, at: int, text: str = TEXT) -> tuple[str, str]:
    """The key line and the signature line of a witness, written from the specification."""
    public = key.public_key().public_bytes_raw()
    key_id = sha256(name.encode() + b"\n\x04" + public).digest()[:4]
    signature = at.to_bytes(8, "big") + key.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
    vkey = f"{name}+{key_id.hex()}+{b64encode(bytes([4]) + public).decode()}"
    return vkey, f"— {name} {b64encode(key_id + signature).decode()}\n"


def test_both_keys_open_a_note_and_so_do_foreign_verifiers() -> None:
    for vkey in (PLAIN.vkey, QUANTUM.vkey):
        assert open_note(NOTE, vkey) == Checkpoint(ORIGIN, 7, ROOT)
        assert scales_check(NOTE, vkey) == (ORIGIN, 7, ROOT)
    opened = verify_note(NOTE, [parse_vkey(PLAIN.vkey), parse_vkey(QUANTUM.vkey)])
    assert [key.vkey for key in opened.keys] == [PLAIN.vkey, QUANTUM.vkey]
    assert "".join(opened.lines.values()) == NOTE.partition("\n\n")[2]


def test_go_opens_the_ed25519_line_and_checks_proofs() -> None:
    leaves = [merkle.leaf_hash(b"%d" % n) for n in range(70)]
    root = merkle.root_of(leaves)
    text = Checkpoint(ORIGIN, 70, root).text()
    note = f"{text}\n{PLAIN.line(text)}{QUANTUM.line(text)}"
    inclusions = [(n, leaves[n], merkle.inclusion_proof(leaves, n)) for n in (0, 63, 64, 69)]
    consistencies = [(n, merkle.root_of(leaves[:n]), merkle.consistency_proof(leaves, n)) for n in (1, 64, 69, 70)]
    read = go_check(note, [PLAIN.vkey], inclusions, consistencies)
    assert read == {"origin": ORIGIN, "size": 70, "root": b64encode(root).decode(), "signed_by": [ORIGIN]}
    bad: list[Callable[[], object]] = [
        lambda: go_check(note.replace("\n70\n", "\n71\n"), [PLAIN.vkey]),
        lambda: go_check(note, [PLAIN.vkey], [(1, leaves[0], inclusions[0][2])]),
        lambda: go_check(note, [PLAIN.vkey], [], [(64, ROOT, consistencies[1][2])]),
    ]
    for attempt in bad:
        with pytest.raises(ValueError, match=r".+"):
            attempt()


def test_the_signature_has_the_shape_of_the_specification() -> None:
    before = int(time.time())
    _, name, encoded = QUANTUM.line(TEXT).split(" ")
    raw, public = b64decode(encoded), b64decode(QUANTUM.vkey.split("+", 2)[2])
    assert (name, len(raw), len(public), public[0]) == (ORIGIN, 4 + 8 + 2420, 1 + 1312, 6)
    assert raw[:4] == sha256(ORIGIN.encode() + b"\n" + public).digest()[:4]
    assert before <= int.from_bytes(raw[4:12], "big") <= time.time()


def test_a_foreign_ml_dsa_signature_opens() -> None:
    foreign = MLDSA44CosignatureSigner(ORIGIN, bytes(range(32)))
    assert scales_vkey(foreign.vkey) == QUANTUM.vkey
    note = ForeignCheckpoint.make_signed(ORIGIN, 7, ROOT, [foreign]).serialize()
    assert open_note(note, QUANTUM.vkey) == Checkpoint(ORIGIN, 7, ROOT)


def test_an_older_note_with_one_signature_opens() -> None:
    old = PLAIN.sign(7, ROOT)
    assert open_note(old, PLAIN.vkey, QUANTUM.vkey) == Checkpoint(ORIGIN, 7, ROOT)
    with pytest.raises(NoteError, match="not signed"):
        open_note(old, QUANTUM.vkey)


@pytest.mark.parametrize("change", ["\n7\n->\n8\n", f"{ORIGIN}\n7->{ORIGIN}x\n7", f"{ORIGIN} ->{ORIGIN}x "])
def test_the_second_key_signs_origin_size_and_its_own_name(change: str) -> None:
    was, _, now = change.partition("->")
    note = f"{TEXT}\n{QUANTUM.line(TEXT)}"
    assert is_signed_by(note, QUANTUM.vkey)
    assert not is_signed_by(note.replace(was, now), QUANTUM.vkey)


def test_every_bent_part_of_the_second_signature_is_refused() -> None:
    """Position 0 to 3 is the key id: another key, passed over, so that nothing is left."""
    _, _, encoded = QUANTUM.line(TEXT).split(" ")
    raw = b64decode(encoded)
    for position in [*range(16), *range(16, len(raw), 97), len(raw) - 1]:
        bent = bytearray(raw)
        bent[position] ^= 1
        line = f"— {ORIGIN} {b64encode(bent).decode()}\n"
        assert not is_signed_by(f"{TEXT}\n{line}", QUANTUM.vkey), position
    for cut in (raw[:4], raw[:5], raw[:11], raw[:12], raw[:-1], raw + b"\0"):
        line = f"— {ORIGIN} {b64encode(cut).decode()}\n"
        assert not is_signed_by(f"{TEXT}\n{line}", QUANTUM.vkey), len(cut)


@pytest.mark.parametrize("wrong", [PLAIN, QUANTUM])
def test_one_wrong_signature_of_a_known_key_refuses_the_whole_note(wrong: Signer | MldsaSigner) -> None:
    other = Checkpoint(ORIGIN, 8, ROOT).text()
    right = QUANTUM if wrong is PLAIN else PLAIN
    note = f"{TEXT}\n{right.line(TEXT)}{wrong.line(other)}"
    assert is_signed_by(note, right.vkey)  # to who knows one key, the other is unknown
    with pytest.raises(NoteError, match="wrong"):
        open_note(note, PLAIN.vkey, QUANTUM.vkey)
    with pytest.raises(NoteError, match="wrong"):
        open_note(f"{TEXT}\n{right.line(TEXT)}{right.line(other)}", right.vkey)


def test_cosignatures_of_witnesses() -> None:
    key = Ed25519PrivateKey.generate()
    vkey, line = cosigned("witness.example/w1", key, 1_800_000_000)
    witness = parse_vkey(vkey)
    opened = verify_note(NOTE + line, [parse_vkey(PLAIN.vkey), witness])
    assert opened.lines[vkey] == line
    assert scales_check(NOTE + line, vkey) == (ORIGIN, 7, ROOT)
    assert is_signed_by(NOTE + line, PLAIN.vkey)
    with pytest.raises(NoteError, match="another origin"):
        open_note(NOTE + line, vkey)
    for text, at in ((Checkpoint(ORIGIN, 8, ROOT).text(), 1_800_000_000), (TEXT, 1 << 63)):
        _, wrong = cosigned("witness.example/w1", key, at, text)
        with pytest.raises(NoteError, match="wrong"):
            verify_note(NOTE + wrong, [witness])


def test_the_same_key_of_another_kind_is_another_key() -> None:
    key = Ed25519PrivateKey.generate()
    vkey, line = cosigned(ORIGIN, key, 5)
    plain = Signer(ORIGIN, key)
    assert not is_signed_by(f"{TEXT}\n{line}", plain.vkey)
    assert not is_signed_by(f"{TEXT}\n{plain.line(TEXT)}", vkey)


def test_the_example_of_the_specification_can_be_read() -> None:
    text, lines = split_note(WITNESSED)
    assert text.endswith("jxq2I=\n")
    assert len(lines) == 2
    assert not is_signed_by(WITNESSED, PLAIN.vkey)


@pytest.mark.parametrize("count", [16, 99])
def test_many_signatures_of_strangers_are_passed_over(count: int) -> None:
    lines = [cosigned(f"w{n}.example", Ed25519PrivateKey.generate(), n)[1] for n in range(count)]
    assert is_signed_by(f"{TEXT}\n{''.join(lines)}{PLAIN.line(TEXT)}", PLAIN.vkey)


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace(ORIGIN, ORIGIN + "\x1f", 1),
        NOTE + "\t",
        NOTE + "— " + ORIGIN + " AAAA\n",
        NOTE + "— a b\n",
        NOTE + "— name+plus AAAAAAAA\n",
        NOTE + "— no\u00a0break AAAAAAAA\n",
        NOTE + "-- name AAAAAAAA\n",
        NOTE + "\n",
        NOTE[:-1],
        NOTE + "\ud800",
        "",
        "\n\n",
        TEXT,
        f"\n{NOTE}",
        NOTE + "".join(f"— w{n} AAAAAAAA\n" for n in range(99)),
        f"{TEXT}\nextension\n\n{PLAIN.line(TEXT)}",
        f"{ORIGIN}\n{'9' * 5000}\n{b64encode(ROOT).decode()}\n\n{PLAIN.line(TEXT)}",
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_note(note, PLAIN.vkey)


@pytest.mark.parametrize("size", ["9" * 5000, str(1 << 63), "+1", "1_0", " 1", "1 "])
def test_a_signed_size_that_is_none_is_refused(size: str) -> None:
    text = f"{ORIGIN}\n{size}\n{b64encode(ROOT).decode()}\n"
    with pytest.raises(NoteError, match="size"):
        open_note(f"{text}\n{PLAIN.line(text)}", PLAIN.vkey)


def test_an_extension_line_is_read_over() -> None:
    text = f"{TEXT}an extension\n"
    assert open_note(f"{text}\n{PLAIN.line(text)}", PLAIN.vkey) == Checkpoint(ORIGIN, 7, ROOT)


@pytest.mark.parametrize(
    "vkey",
    [
        QUANTUM.vkey.replace("+", "+0", 1),
        QUANTUM.vkey[:-4],
        "name+00000000+" + b64encode(b"\x06" + bytes(1311)).decode(),
        "name+00000000+" + b64encode(b"\x05" + bytes(32)).decode(),
        "name+00000000+",
        PLAIN.vkey.replace(ORIGIN, "two words"),
        "\ud800" + PLAIN.vkey,
    ],
)
def test_a_malformed_key_line_is_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        parse_vkey(vkey)


def test_a_name_that_does_not_fit_is_refused() -> None:
    key = MLDSA44PrivateKey.generate()
    assert MldsaSigner("x" * 255, key).vkey
    with pytest.raises(ValueError, match="255"):
        MldsaSigner("ä" * 128, key)
