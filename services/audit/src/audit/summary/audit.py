"""What the audit service did."""

from audit.summary.common import because, line, names, say, when
from contracts import audit


@say.register
def _(m: audit.CheckpointPublished) -> str:
    return f"The first {m.size} entries of the log were signed as {m.root}"


@say.register
def _(m: audit.AccessRecorded) -> str:
    return f"{m.principal} read the log ({m.outcome}): {line(m.query)}"


@say.register
def _(m: audit.RetentionPublished) -> str:
    ages = names(f"{rule.topic} {rule.type}: {rule.days} days" for rule in m.rules)
    return f"{m.published_by} published how long the log keeps what ({ages}){because(m.reason or '')}"


@say.register
def _(m: audit.HoldPlaced) -> str:
    whom = m.model or (f"the workspace {m.workspace}" if m.workspace else "everything")
    span = (f" from {when(m.since)}" if m.since else "") + (f" until {when(m.until)}" if m.until else "")
    return f"{m.placed_by} placed the legal hold {m.hold_id} on {whom}{span}{because(m.reason)}"


@say.register
def _(m: audit.HoldReleased) -> str:
    return f"{m.released_by} released the legal hold {m.hold_id}{because(m.reason)}"


@say.register
def _(m: audit.LogPruned) -> str:
    return f"{m.pruned_by} pruned the entries {m.first} to {m.until - 1} from the database; the object store has them"


@say.register
def _(m: audit.RecordSkipped) -> str:
    return f"{m.sink} refused the record of entry {m.index} ({m.status}: {line(m.detail)}); the feed goes on without it"


@say.register
def _(m: audit.PersonKnown) -> str:
    return f"{m.pseudonym} stands for somebody whom the vault of identities knows ({m.commitment})"


@say.register
def _(m: audit.SubjectErased) -> str:
    also = f" and of {names(m.also)}" if m.also else ""
    return f"{m.erased_by} erased the identity of {m.pseudonym}{also}{because(m.reason)}"


@say.register
def _(m: audit.SearchSaved) -> str:
    when = f" every {m.every} seconds" if m.every else ""
    alert = "" if m.alert_above is None else f", to hear of more than {m.alert_above} in a run"
    return f"{m.owner} saved the search {m.name}: {line(m.query)}{when}{alert}"


@say.register
def _(m: audit.SearchRemoved) -> str:
    return f"{m.removed_by} removed the search {m.name} of {m.owner}"


@say.register
def _(m: audit.SearchRan) -> str:
    if m.outcome != "allowed":
        return f"The search {m.name} of {m.owner} did not run: {m.outcome}"
    return f"The search {m.name} of {m.owner} found {m.matches} from entry {m.first} up to entry {m.until}"


@say.register
def _(m: audit.SearchAlerted) -> str:
    return f"The search {m.name} alerted {m.owner}: {m.matches} matches, more than {m.above}, from entry {m.first} on"
