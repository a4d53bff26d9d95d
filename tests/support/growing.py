"""A log that only grows, and another that begins like it: checkpoints and proofs for tests."""

from audit import merkle
from audit.note import Checkpoint


class Growing:
    """`fork`: from which entry on it is another log. `size`: entries at most."""

    def __init__(self, origin: str, size: int = 200, fork: int | None = None) -> None:
        self.origin = origin
        other = size if fork is None else fork
        self.leaves = [merkle.leaf_hash(b"%s %d" % (b"entry" if n < other else b"forged", n)) for n in range(size)]

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, merkle.root_of(self.leaves[:size]))

    def proof(self, old: int, size: int) -> list[bytes]:
        return merkle.consistency_proof(self.leaves[:size], old)
