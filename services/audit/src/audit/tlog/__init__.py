"""The log as the world sees it: C2SP tlog-tiles in an object store, signed checkpoints, proofs."""
