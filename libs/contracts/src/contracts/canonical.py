"""One byte string per JSON value, so that digests and signatures can be recomputed by others."""

import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, shortest round-trip numbers. NaN and infinity are refused.

    Equals RFC 8785 for what we put in it, but for the spelling of floats such as 1e21 and of keys beyond the
    basic plane; a verifier in Python needs the standard library only.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
