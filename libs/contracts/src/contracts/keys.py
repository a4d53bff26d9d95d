"""When a published key counts: `exp` and `nbf` of its JWK (RFC 7517), in seconds, and Hallmark's own `revoked`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

LEEWAY_SECONDS = 30  # clocks differ
Code = Literal["revoked-key", "stale-key"]


def not_counting(key: Mapping[str, Any], at: datetime) -> tuple[Code, str] | None:
    """Why the key does not count for what is dated at that time, if so. A revoked key counts at no time: whoever stole
    it can write any date."""
    kid, revoked, begin, end = key.get("kid"), key.get("revoked"), key.get("nbf"), key.get("exp")
    if revoked is not None:
        return "revoked-key", f"it is signed by the key {kid}, which was revoked{_when(revoked)}"
    if end is not None and not (_number(end) and at.timestamp() <= end + LEEWAY_SECONDS):
        return "stale-key", f"it is dated {at.isoformat()}, after its key {kid} had ceased to sign{_at(end)}"
    if begin is not None and not (_number(begin) and at.timestamp() >= begin - LEEWAY_SECONDS):
        return "stale-key", f"it is dated {at.isoformat()}, before its key {kid} began to sign{_at(begin)}"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _when(revoked: Any) -> str:
    """What a set says of a revocation, which may be anything."""
    if not isinstance(revoked, dict):
        return ""
    reason = revoked.get("reason")
    return _at(revoked.get("revoked_at")) + (f" ({reason[:100]})" if isinstance(reason, str) else "")


def _at(seconds: Any) -> str:
    try:
        return f" at {datetime.fromtimestamp(seconds, UTC).isoformat()}"
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
