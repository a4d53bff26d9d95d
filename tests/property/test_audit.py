"""The log's pure parts under random input."""

import json
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit import merkle
from audit.domain import LOGGED, read
from audit.leaf import Leaf, decode, redact
from audit.note import Signer, is_signed_by
from audit.summary import summarise
from audit.verify import verify_export

SIGNER = Signer("hallmark.example/log/property", Ed25519PrivateKey.from_private_bytes(bytes(32)))
HASHES = st.lists(st.binary(max_size=8).map(merkle.leaf_hash), min_size=1, max_size=200)
HEADER_NAMES = st.one_of(
    st.sampled_from(["ce_specversion", "ce_id", "ce_type", "ce_time", "ce_sequence", "content-type", "authorization"]),
    st.text(max_size=10),
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, st.none() | st.binary(max_size=20)), max_size=8).map(tuple)
LEAVES = st.builds(
    Leaf,
    topic=st.sampled_from([topic.name for topic in LOGGED]),
    partition=st.integers(0, 100),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**60),
    recorded_at=st.datetimes(timezones=st.just(UTC)),
    key=st.none() | st.binary(max_size=20),
    headers=HEADERS.map(redact),
    value=st.none() | st.binary(max_size=100),
)


@given(LEAVES)
def test_a_leaf_is_read_back_exactly(leaf: Leaf) -> None:
    assert decode(leaf.encode()) == leaf


PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.encode)


@given(LEAVES, PLAIN, st.lists(st.tuples(HEADER_NAMES, PLAIN), max_size=8).map(tuple), st.booleans())
def test_the_quick_spelling_is_the_careful_one(
    leaf: Leaf, key: bytes, headers: tuple[tuple[str, bytes], ...], plain: bool
) -> None:
    leaf = replace(leaf, key=key, headers=headers, value=leaf.value or b"") if plain else leaf
    with patch("audit.leaf._form", return_value=None):
        careful = leaf.encode()
    assert leaf.encode() == careful


@given(LEAVES, LEAVES)
def test_two_leaves_share_bytes_only_when_they_are_equal(one: Leaf, other: Leaf) -> None:
    same = (one.topic, one.key, one.headers, one.value) == (other.topic, other.key, other.headers, other.value)
    types = [type(v) for _, v in one.headers] == [type(v) for _, v in other.headers]
    assert (one.content_digest() == other.content_digest()) == (same and types)


@given(LEAVES)
def test_reading_and_telling_never_raise(leaf: Leaf) -> None:
    reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
    text = summarise(reading)
    assert reading.flaw is not None
    assert "\x00" not in text + reading.flaw.detail
    (text + reading.flaw.detail).encode()


@given(HASHES, st.data())
def test_proofs_hold_in_a_tree_grown_leaf_by_leaf(hashes: list[bytes], data: st.DataObject) -> None:
    frontier = merkle.Frontier()
    roots = [frontier.root()]
    for leaf in hashes:
        frontier.append(leaf)
        roots.append(frontier.root())
    index = data.draw(st.integers(0, len(hashes) - 1))
    first = data.draw(st.integers(0, len(hashes)))
    proof = merkle.inclusion_proof(hashes, index)
    assert merkle.verify_inclusion(hashes[index], index, len(hashes), proof, roots[-1])
    assert merkle.verify_consistency(
        first, len(hashes), roots[first], roots[-1], merkle.consistency_proof(hashes, first)
    )


@given(st.lists(st.binary(max_size=32), max_size=8), HASHES, st.integers(-5, 300), st.integers(-5, 300))
def test_a_random_proof_never_verifies(proof: list[bytes], hashes: list[bytes], first: int, second: int) -> None:
    root = merkle.root_of(hashes)
    other = sha256(b"other").digest()
    assert not merkle.verify_inclusion(other, first, second, proof, root)
    if not (first == 0 <= second and not proof):
        assert not merkle.verify_consistency(first, second, other, root, proof)


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 2**20), st.integers(1, 255))
def test_a_checkpoint_with_one_changed_byte_is_refused(size: int, root: bytes, where: int, flip: int) -> None:
    note = SIGNER.sign(size, root)
    assert is_signed_by(note, SIGNER.vkey)
    bent = bytearray(note.encode())
    bent[where % len(bent)] ^= flip
    assert not is_signed_by(bent.decode(errors="replace"), SIGNER.vkey)


@given(st.lists(LEAVES, min_size=1, max_size=12), st.integers(0, 2**20), st.integers(1, 255))
def test_an_export_with_one_changed_byte_is_refused(leaves: list[Leaf], where: int, flip: int) -> None:
    data = [leaf.encode() for leaf in leaves]
    root = merkle.root_of([merkle.leaf_hash(leaf) for leaf in data])
    head = {"origin": SIGNER.name, "size": len(data), "root": b64encode(root).decode()}
    documents = [{**head, "checkpoint": SIGNER.sign(len(data), root)}] + [
        {"index": n, "leaf": b64encode(leaf).decode(), "leaf_hash": merkle.leaf_hash(leaf).hex()}
        for n, leaf in enumerate(data)
    ]
    whole = bytearray(
        b"".join(json.dumps(d, sort_keys=True, separators=(",", ":")).encode() + b"\n" for d in documents)
    )
    assert verify_export(bytes(whole).splitlines(keepends=True), SIGNER.vkey).ok
    whole[where % len(whole)] ^= flip
    lines = [line + b"\n" for line in bytes(whole).split(b"\n")]
    lines[-1] = lines[-1][:-1]
    assert not verify_export([line for line in lines if line], SIGNER.vkey).ok


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
def test_the_same_instant_in_another_zone_has_the_same_bytes(at: datetime, offset: timedelta) -> None:
    from datetime import timezone

    try:
        moved = at.astimezone(timezone(timedelta(minutes=offset // timedelta(minutes=1))))
    except OverflowError:
        return
    one, other = (Leaf("t", 0, 0, 0, moment, None, (), None) for moment in (at, moved))
    assert one.encode() == other.encode()
