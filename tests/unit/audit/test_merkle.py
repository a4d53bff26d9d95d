"""The tree against RFC 6962's published vectors and a naive transcription of its definitions."""

from collections.abc import Sequence
from hashlib import sha256

import pytest

from audit import merkle

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# From the tests of certificate-transparency-go: (leaf counted from 0, size, path).
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_proof(m: int, leaves: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962, section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def leaves_of(size: int) -> list[bytes]:
    return [b"leaf %d" % n for n in range(size)]


def hashes_of(size: int) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in leaves_of(size)]


def test_the_published_roots() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    assert [merkle.root_of(hashes[:n]).hex() for n in range(9)] == ROOTS


@pytest.mark.parametrize(("index", "size", "path"), PATHS)
def test_the_published_paths(index: int, size: int, path: list[str]) -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert [node.hex() for node in merkle.inclusion_proof(hashes, index)] == path


def test_every_size_has_the_root_of_the_definition_and_its_frontier_survives_storage() -> None:
    leaves = leaves_of(130)
    frontier = merkle.Frontier()
    for size in range(131):
        assert frontier.root() == naive_root(leaves[:size]), size
        frontier = merkle.Frontier.load(frontier.size, frontier.dump())
        if size < 130:
            frontier.append(merkle.leaf_hash(leaves[size]))


@pytest.mark.parametrize(("size", "data"), [(1, b""), (0, b"x" * 32), (3, b"x" * 63), (2, b"x" * 64), (2, b"x" * 33)])
def test_a_frontier_of_the_wrong_shape_is_refused(size: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="frontier"):
        merkle.Frontier.load(size, data)


def test_inclusion_for_every_entry_of_every_size() -> None:
    for size in range(1, 41):
        leaves, hashes = leaves_of(size), hashes_of(size)
        root = naive_root(leaves)
        for index in range(size):
            proof = merkle.inclusion_proof(hashes, index)
            assert proof == naive_path(index, leaves)
            assert merkle.verify_inclusion(hashes[index], index, size, proof, root)


LARGER = sorted({*range(45, 301, 15), *(2**n + d for n in (6, 7, 8) for d in (-1, 0, 1)), 300})


def test_proofs_in_larger_trees_lead_to_the_roots_of_the_frontier() -> None:
    """Every entry, and every smaller tree, of sizes up to 300. Other trees' roots are refused."""
    hashes, frontier = hashes_of(300), merkle.Frontier()
    roots = [frontier.root()]
    for node in hashes:
        frontier.append(node)
        roots.append(frontier.root())
    for size in LARGER:
        for index in range(size):
            proof = merkle.inclusion_proof(hashes[:size], index)
            assert merkle.verify_inclusion(hashes[index], index, size, proof, roots[size])
            assert not merkle.verify_inclusion(hashes[index], index, size, proof, roots[size - 1])
        for first in range(1, size):
            proof = merkle.consistency_proof(hashes[:size], first)
            assert merkle.verify_consistency(first, size, roots[first], roots[size], proof)
            assert not merkle.verify_consistency(first, size, roots[first - 1], roots[size], proof)


def test_consistency_for_every_pair_of_sizes() -> None:
    for second in range(41):
        leaves, hashes = leaves_of(second), hashes_of(second)
        new = naive_root(leaves)
        for first in range(second + 1):
            old = naive_root(leaves[:first])
            proof = merkle.consistency_proof(hashes, first)
            assert proof == (naive_proof(first, leaves) if first else [])
            assert merkle.verify_consistency(first, second, old, new, proof)


def test_a_wrong_inclusion_proof_is_refused() -> None:
    for size in range(1, 20):
        hashes = hashes_of(size)
        root = merkle.root_of(hashes)
        for index in range(size):
            proof = merkle.inclusion_proof(hashes, index)
            other = merkle.leaf_hash(b"other")
            assert not merkle.verify_inclusion(other, index, size, proof, root)
            assert not merkle.verify_inclusion(hashes[index], index, size, proof, other)
            assert not merkle.verify_inclusion(hashes[index], index, size, [*proof, other], root)
            assert not merkle.verify_inclusion(hashes[index], size, size, proof, root)
            assert not merkle.verify_inclusion(hashes[index], -1, size, proof, root)
            for n in range(len(proof)):
                assert not merkle.verify_inclusion(hashes[index], index, size, proof[:n] + proof[n + 1 :], root)
                bent = [*proof[:n], other, *proof[n + 1 :]]
                assert not merkle.verify_inclusion(hashes[index], index, size, bent, root)
            for elsewhere in set(range(size)) - {index}:
                assert not merkle.verify_inclusion(hashes[index], elsewhere, size, proof, root)


def test_a_wrong_consistency_proof_is_refused() -> None:
    for second in range(1, 20):
        hashes = hashes_of(second)
        new = merkle.root_of(hashes)
        other = merkle.leaf_hash(b"other")
        for first in range(1, second + 1):
            old = merkle.root_of(hashes[:first])
            proof = merkle.consistency_proof(hashes, first)
            assert not merkle.verify_consistency(first, second, other, new, proof)
            assert not merkle.verify_consistency(first, second, old, other, proof)
            assert not merkle.verify_consistency(first, second, old, new, [*proof, other])
            for n in range(len(proof)):
                assert not merkle.verify_consistency(first, second, old, new, proof[:n] + proof[n + 1 :])
                bent = [*proof[:n], other, *proof[n + 1 :]]
                assert not merkle.verify_consistency(first, second, old, new, bent)
    assert not merkle.verify_consistency(0, 3, other, merkle.root_of(hashes_of(3)), [])
    assert not merkle.verify_consistency(3, 2, merkle.root_of(hashes_of(3)), merkle.root_of(hashes_of(2)), [])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_no_proof_for_what_is_not_there(index: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_proof(hashes_of(3), index)
    if index not in (3,):
        with pytest.raises(ValueError, match="no tree"):
            merkle.consistency_proof(hashes_of(3), index)
