"""What is kept from being sent: silences that people set, and rules by which an emergency hushes routine. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase

from contracts.envelope import Envelope
from contracts.notifier import InhibitionCreated, InhibitionRemoved, SilenceCreated, SilenceExpired
from notifier.domain import Subscription
from notifier.matching import Seen, selects
from policy.expressions import ExpressionError

SILENCED, INHIBITED = "silenced", "inhibited"


@dataclass(frozen=True)
class Silence:
    """Nothing that it selects is sent from `starts_at` until `ends_at`: to the subscriptions of `owner`, or to anybody
    in the workspace (None)."""

    silence_id: str
    workspace: str
    types: tuple[str, ...]
    model: str
    stages: tuple[str, ...]
    cel: str | None
    owner: str | None
    starts_at: datetime
    ends_at: datetime
    author: str
    comment: str
    created_at: datetime
    expired_by: str | None = None

    def state(self, at: datetime) -> str:
        if at >= self.ends_at:
            return "expired"
        return "pending" if at < self.starts_at else "active"


@dataclass(frozen=True)
class Target:
    """What a rule hushes."""

    types: tuple[str, ...]
    model: str = "*"
    stages: tuple[str, ...] = ()
    cel: str | None = None


@dataclass(frozen=True)
class Inhibition:
    """After an event of the `source_types` (and for which `cel` holds), until one of the `until_types` or for so many
    seconds, nothing of the `target_types` is sent whose `equal` labels are the same."""

    inhibition_id: str
    workspace: str
    source_types: tuple[str, ...]
    cel: str | None
    until_types: tuple[str, ...]
    seconds: int
    target_types: tuple[str, ...]
    equal: tuple[str, ...]
    author: str
    comment: str
    created_at: datetime
    removed_by: str | None = None

    def raises(self, event: Seen) -> bool:
        """Whether the alarm goes on with this event. Raises ExpressionError."""
        return selects(Target(self.source_types, cel=self.cel), event)

    def ends(self, event: Seen) -> bool:
        return any(fnmatchcase(event.envelope.type, pattern) for pattern in self.until_types)

    def hushes(self, event: Seen) -> bool:
        return any(fnmatchcase(event.envelope.type, pattern) for pattern in self.target_types)

    def labels(self, event: Seen) -> str:
        """What must be equal, as one text."""
        return "\n".join(f"{name}={label(event, name)}" for name in self.equal)


def label(event: Seen, name: str) -> str:
    """One of `workspace`, `model`, `version`, `type` and `request` of an event; empty where it has none."""
    workspace, model, version = event.place
    known = {"workspace": workspace, "model": model, "version": version, "type": event.envelope.type}
    found = event.request if name == "request" else known[name]
    return "" if found is None else str(found)


@dataclass(frozen=True)
class Hushed:
    """Why a delivery is not made: `by` is the id of the silence or the rule."""

    status: str
    by: str


@dataclass(frozen=True)
class Quiet:
    """By subscription, what keeps an event from it. `failed`: ids of those whose expression had no answer, and why;
    they keep nothing from anybody."""

    hushed: Mapping[str, Hushed]
    failed: list[tuple[str, str]] = field(default_factory=list)


def quiet(
    wanted: Iterable[Subscription],
    event: Seen,
    silences: Iterable[Silence],
    alarms: Iterable[Inhibition],
    at: datetime,
) -> Quiet:
    """`alarms` are the rules whose alarm is on for the labels of this event."""
    chosen, failed = list[Silence](), list[tuple[str, str]]()
    for silence in silences:
        try:
            if silence.state(at) == "active" and selects(silence, event):
                chosen.append(silence)
        except ExpressionError as error:
            failed.append((silence.silence_id, str(error)))
    hushing = [rule for rule in alarms if rule.hushes(event)]
    found = dict[str, Hushed]()
    for subscription in wanted:
        own = (s for s in chosen if s.workspace == subscription.workspace and s.owner in (None, subscription.owner))
        if (silence_ := next(own, None)) is not None:
            found[subscription.subscription_id] = Hushed(SILENCED, silence_.silence_id)
        elif (rule := next((r for r in hushing if r.workspace == subscription.workspace), None)) is not None:
            found[subscription.subscription_id] = Hushed(INHIBITED, rule.inhibition_id)
    return Quiet(found, failed)


def evolve_silence(state: Silence | None, envelope: Envelope) -> Silence | None:
    match envelope.type:
        case SilenceCreated.TYPE:
            made = envelope.payload(SilenceCreated)
            return Silence(**dict(made), created_at=envelope.time)
        case SilenceExpired.TYPE if state:
            by = envelope.payload(SilenceExpired).expired_by
            return replace(state, ends_at=min(state.ends_at, envelope.time), expired_by=by)
    return state


def evolve_inhibition(state: Inhibition | None, envelope: Envelope) -> Inhibition | None:
    match envelope.type:
        case InhibitionCreated.TYPE:
            made = envelope.payload(InhibitionCreated)
            return Inhibition(**dict(made), created_at=envelope.time)
        case InhibitionRemoved.TYPE if state:
            return replace(state, removed_by=envelope.payload(InhibitionRemoved).removed_by)
    return state
