"""Which stages and aliases of a workspace are entered only by a signed decision, at any moment. Pure.

A change that carries a decision is judged by it. One that carries none is judged by the rules of its workspace that
were in force at the event's time: it is good only if they know the stage and leave it without a gate, or do not protect
the alias. Rules come on a stream of their own, so a change may be logged before the rules it was made under. It is
judged by what is known then, and again when rules of an earlier time arrive, as `audit.claims` does; what it does to
the views is taken back or made good. So after the same entries, in whatever order, every change has the same verdict.

Guaranteed: an undecided change into a gated stage, or of a protected alias, is flagged and moves nothing, as long as
the rules in the log are the registry's and its time is true. A stage that the rules do not know counts as gated.

Not guaranteed: rules are not signed, and times are the writer's word. Who can write to the registry's topic can forge
rules that open a stage, or date a change back to rules that left it open. Both stay in the log for all to see. Rules
count only without a gap in their sequence. When two entries claim the same place in it, both must leave a stage open:
forged rules next to true ones can close a gate, never open one. A removal of an alias needs no decision at all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle

# Clocks of replicas differ, and a change that is being written does not see rules that are being written: so near to
# new rules, the old and the new ones are both good.
OVERLAP = timedelta(seconds=10)
ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Rules:
    """What one entry of the log says of a workspace from `at` on. `index` None: nobody said anything."""

    lifecycle: Lifecycle
    protected: frozenset[str] = frozenset()
    sequence: int = 0
    at: datetime = ALWAYS
    index: int | None = None

    def opens(self, target: str) -> bool:
        """Whether a version may enter the stage, or get the `@alias`, without a decision."""
        if target.startswith("@"):
            return target[1:] not in self.protected
        rule = self.lifecycle.rule(target)
        return rule is not None and not rule.gated


DEFAULT = Rules(DEFAULT_LIFECYCLE)


class History:
    """All rules that a workspace ever had, as far as they are known without a gap."""

    def __init__(self, found: Iterable[Rules]) -> None:
        by_sequence: dict[int, tuple[Rules, ...]] = {0: (DEFAULT,)}
        for rules in sorted(found, key=lambda r: (r.sequence, r.index or 0)):
            if rules.sequence - 1 in by_sequence:
                by_sequence[rules.sequence] = (*by_sequence.get(rules.sequence, ()), rules)
        self._places = [(min(r.at for r in claimed), claimed) for claimed in by_sequence.values()]

    def changed_since(self, before: "History") -> datetime | None:
        """From when on it says something else than `before`, which knew a part of this; None: it says the same."""
        return min((start for start, claimed in self._places if (start, claimed) not in before._places), default=None)

    def in_force(self, at: datetime, *, before: bool = False) -> tuple[Rules, ...]:
        """More than one when entries claim the same place. `before`: an instant earlier."""
        started = (claimed for start, claimed in reversed(self._places) if (start < at if before else start <= at))
        return next(started, (DEFAULT,))

    def opens(self, target: str, at: datetime) -> bool:
        return any(all(rules.opens(target) for rules in claimed) for claimed in self._around(at))

    def _around(self, at: datetime) -> Iterator[tuple[Rules, ...]]:
        yield self.in_force(at)
        for start, claimed in self._places[1:]:
            if abs(start - at) <= OVERLAP:
                yield claimed
                yield self.in_force(start, before=True)

    def spelling(self, stage: str, at: datetime) -> str:
        """The stage as its workspace writes it, at that time or else at any other; capitals do not matter."""
        every = (*self.in_force(at), *(r for _, claimed in reversed(self._places) for r in claimed))
        return next((name for r in every if (name := r.lifecycle.named(stage)) is not None), stage)
