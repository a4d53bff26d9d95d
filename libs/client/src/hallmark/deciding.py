"""What a server logs with each prediction, so that years later somebody can say what made it, and on what."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from contracts.canonical import canonical_json
from hallmark.loading import Loaded
from hallmark.results import Pin


def decision(made_by: Loaded[Any] | Pin, inputs: Any, **more: Any) -> dict[str, Any]:
    """The record of one decision, ready for `json.dumps`: pin, version, digest of the input, time, and `more`.

    `inputs`: bytes, or what JSON can say (arrays and data frames by their `tolist` or `to_dict`); only the SHA-256 of
    its canonical form is kept, so that no personal data enters the log of decisions, and whoever has the input can
    prove that it was this one.

    >>> loaded = watcher.current
    >>> score = loaded.model.run(None, {"X": rows})
    >>> log.info(json.dumps(hallmark.decision(loaded, rows, score=score)))

    `hallmark audit explain` takes the record, or its pin, back to version, data, metrics and approvals.

    Raises:
        TypeError, ValueError: the inputs are nothing that JSON can say (NaN is not).
    """
    pin = made_by.pin if isinstance(made_by, Loaded) else made_by
    return {
        "at": datetime.now(UTC).isoformat(),
        "workspace": pin.workspace,
        "model": pin.model,
        "version": pin.version,
        "digest": pin.digest,
        "input_digest": input_digest(inputs),
        "pin": pin.pin,
        **more,
    }


def input_digest(inputs: Any) -> str:
    """`sha256:` of bytes as they are, of everything else as canonical JSON (sorted keys, no spaces, UTF-8)."""
    if not isinstance(inputs, bytes | bytearray | memoryview):
        inputs = canonical_json(_plain(inputs))
    return f"sha256:{hashlib.sha256(inputs).hexdigest()}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    if hasattr(value, "to_dict"):  # pandas
        return _plain(value.to_dict("list"))
    return value
