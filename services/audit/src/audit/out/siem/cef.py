"""A log entry as a line of ArcSight's Common Event Format, CEF:0. Pure.

`externalId` and `cn1` are the index, `cs1` the leaf hash: receivers tell repetitions and gaps by them. Texts are cut to
what the format's dictionary allows; the entry itself is found by its index.
"""

import re
from typing import Any

from audit.out.rows import Row
from audit.out.siem.ocsf import FAILURE, ocsf

TEXT = "text/plain; charset=utf-8"
SEVERITY = {1: 1, 2: 3, 3: 5, 4: 8}  # OCSF's informational, low, medium, high
LONG, LABELLED, NAME = 1_023, 4_000, 512
_SPACES = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


def cef(row: Row, origin: str) -> str:
    """`origin`: the name of the log. Never raises; one line, without its end."""
    said, fields = ocsf(row, origin), row.fields
    index = row.stored.index
    name = fields["type"] or "unreadable record"
    header = ("Hallmark", "audit", "1", fields["type"] or "unknown", name, str(SEVERITY[said["severity_id"]]))
    extension: dict[str, Any] = {
        "externalId": index,
        "deviceExternalId": origin,
        "rt": said["metadata"]["logged_time"],
        "start": said["time"],
        "cat": fields["topic"],
        "outcome": "failure" if said["status_id"] == FAILURE else "success",
        "suser": _cut(fields["actor"], LONG),
        "msg": _cut(said["message"], LONG),
        "reason": _cut(fields["reason"], LONG),
        "cn1Label": "logIndex",
        "cn1": index,
        **_labelled("cn2", "copyOf", fields["copy_of"]),
        "cs1Label": "leafHash",
        "cs1": row.stored.leaf_hash.hex(),
        **_labelled("cs2", "subject", fields["subject"]),
        **_labelled("cs3", "problem", fields["problem"]),
        **_labelled("cs4", "eventId", fields["event_id"]),
        **_labelled("cs5", "correlationId", fields["correlationid"]),
        **_labelled("cs6", "workspace", fields["workspace"]),
    }
    told = " ".join(f"{key}={_value(value)}" for key, value in extension.items() if value is not None)
    return f"CEF:0|{'|'.join(_header(part) for part in header)}|{told}"


def _labelled(key: str, label: str, value: str | int | None) -> dict[str, Any]:
    if value is None:
        return {}
    return {f"{key}Label": label, key: value if isinstance(value, int) else _cut(value, LABELLED)}


def _cut(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else f"{text[: most - 3]}..."


def _header(text: str) -> str:
    """A backslash before pipes and backslashes; a header has no line ends."""
    return re.sub(r"([\\|])", r"\\\1", _SPACES.sub(" ", text[:NAME]))


def _value(value: Any) -> str:
    """A backslash before equals signs and backslashes; line ends as \\n."""
    text = str(value).replace("\\", "\\\\").replace("=", "\\=")
    return _SPACES.sub(" ", re.sub(r"\r\n|[\r\n\x85\u2028\u2029]", "\\\\n", text))
