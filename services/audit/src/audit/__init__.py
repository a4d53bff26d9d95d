"""The audit service: one append-only Merkle log of every record, its proofs, and views of the past."""
