"""The RFC 6962 Merkle tree over SHA-256. Pure: no I/O, standard library only.

Source: RFC 6962 section 2.1; the verification algorithms are RFC 9162 sections 2.1.3.2 and 2.1.4.2 (same hashing).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the full subtrees of a tree, largest first: all that is needed to append and to give the root."""

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self._nodes = list(nodes)
        if len(self._nodes) != size.bit_count() or any(len(node) != HASH_SIZE for node in self._nodes):
            raise ValueError(f"a frontier of size {size} has {size.bit_count()} hashes of {HASH_SIZE} bytes")

    @classmethod
    def load(cls, size: int, data: bytes) -> "Frontier":
        """Raises ValueError when `data` is no frontier of that size."""
        return cls(size, [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)])

    def dump(self) -> bytes:
        return b"".join(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Adds a leaf hash."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self._nodes.pop(), node)
            size >>= 1
        self._nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        if not self._nodes:
            return EMPTY_ROOT
        root = self._nodes[-1]
        for node in reversed(self._nodes[:-1]):
            root = node_hash(node, root)
        return root


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    frontier = Frontier()
    for leaf in hashes:
        frontier.append(leaf)
    return frontier.root()


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of all `hashes`.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise ValueError(f"no leaf {index} in a tree of {len(hashes)}")
    proof = []
    level = list(hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        # A last node without a sibling is its own parent.
        level = above + level[len(above) * 2 :]
        index >>= 1
    return proof


def consistency_proof(hashes: Sequence[bytes], first: int) -> list[bytes]:
    """What shows that the tree of all `hashes` begins with the tree of its first `first`.

    Raises:
        ValueError: the first tree is the larger one.
    """
    if not 0 <= first <= len(hashes):
        raise ValueError(f"no tree of {first} in a tree of {len(hashes)}")
    if first in (0, len(hashes)):
        return []
    proof: list[bytes] = []
    low, high, known = 0, len(hashes), True
    while first - low != high - low:
        split = 1 << (high - low - 1).bit_length() - 1
        if first - low <= split:
            proof.append(root_of(hashes[low + split : high]))
            high = low + split
        else:
            proof.append(root_of(hashes[low : low + split]))
            low, known = low + split, False
    if not known:
        proof.append(root_of(hashes[low:high]))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that the leaf hash `leaf` stands at `index` of the tree of `size` leaves."""
    if not 0 <= index < size:
        return False
    node, last = leaf, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the second tree begins with the first. Every tree begins with the empty one."""
    if not 0 <= first <= second:
        return False
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    if first == second:
        return not proof and first_root == second_root
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    index, last = first - 1, second - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, node)
        index, last = index >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
