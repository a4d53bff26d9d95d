"""The RFC 6962 Merkle tree over SHA-256. Pure: no I/O, standard library only.

Source: RFC 6962 section 2.1; the verification algorithms are RFC 9162 sections 2.1.3.2 and 2.1.4.2 (same hashing).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Node(NamedTuple):
    """The root over the leaves from `number * 256**level` on, `256**level` of them."""

    level: int
    number: int
    hash: bytes


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
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> list[Node]:
        """Adds leaf hashes. Gives the roots of the full tiles (256 wide) that they complete, at any level."""
        nodes, size, done = self._nodes, self.size, []
        for leaf in leaves:
            node, above, height = leaf, size, 0
            while above & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                above >>= 1
                height += 1
                if not height & 7:
                    done.append(Node(height >> 3, size >> height, node))
            nodes.append(node)
            size += 1
        self.size = size
        return done

    def root(self) -> bytes:
        return joined(self._nodes) if self._nodes else EMPTY_ROOT


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(hashes)
    return frontier.root()


Range = tuple[int, int]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Over which leaves (from, until) the hashes of the audit path of leaf `index` go, from the leaf up.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    low, high, ranges = 0, size, list[Range]()
    while high - low > 1:
        split = low + _left(high - low)
        if index < split:
            ranges.append((split, high))
            high = split
        else:
            ranges.append((low, split))
            low = split
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """Over which leaves the hashes go that show that the tree of `second` begins with the tree of `first`.

    Raises:
        ValueError: the first tree is the larger one.
    """
    if not 0 <= first <= second:
        raise ValueError(f"no tree of {first} in a tree of {second}")
    if first in (0, second):
        return []
    low, high, known, ranges = 0, second, True, list[Range]()
    while first != high:
        split = low + _left(high - low)
        if first <= split:
            ranges.append((split, high))
            high = split
        else:
            ranges.append((low, split))
            low, known = split, False
    if not known:
        ranges.append((low, high))
    return ranges[::-1]


def full_subtrees(low: int, high: int) -> list[tuple[int, int]]:
    """The full subtrees (height, index among those of its height) that make up a range of a proof, largest first."""
    found = []
    while low < high:
        height = (high - low).bit_length() - 1
        found.append((height, low >> height))
        low += 1 << height
    return found


def joined(roots: Sequence[bytes]) -> bytes:
    """The root over full subtrees, given largest first. Raises IndexError when there are none."""
    root = roots[-1]
    for node in reversed(roots[:-1]):
        root = node_hash(node, root)
    return root


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of all leaf `hashes`. Raises ValueError."""
    return [root_of(hashes[low:high]) for low, high in inclusion_ranges(index, len(hashes))]


def consistency_proof(hashes: Sequence[bytes], first: int) -> list[bytes]:
    """What shows that the tree of all `hashes` begins with the tree of its first `first`. Raises ValueError."""
    return [root_of(hashes[low:high]) for low, high in consistency_ranges(first, len(hashes))]


def _left(size: int) -> int:
    """How many leaves of a tree of two or more are to the left: the largest power of two that leaves some."""
    return 1 << ((size - 1).bit_length() - 1)


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
