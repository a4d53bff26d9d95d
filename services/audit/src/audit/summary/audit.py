"""What the audit service did."""

from audit.summary.common import line, say
from contracts import audit


@say.register
def _(m: audit.CheckpointPublished) -> str:
    return f"The first {m.size} entries of the log were signed as {m.root}"


@say.register
def _(m: audit.AccessRecorded) -> str:
    return f"{m.principal} read the log ({m.outcome}): {line(m.query)}"
