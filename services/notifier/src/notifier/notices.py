"""What an event says to a person: one headline, and the facts under it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contracts.registry import Criterion, Transition

_RESULTS = {
    "pass": "passed",
    "fail": "failed",
    "error": "could not be evaluated",
    "waived": "was waived",
    "pending": "has not answered yet",
}
# How the approval service shows the values that a gate saw.
_VALUE = re.compile(r"((?:candidate|baseline)\.metrics\.[^\s=,;]+) = ([^\s,;]+)")


@dataclass(frozen=True)
class Notice:
    """`headline` names the model first; `who` is one sentence; `criteria` is one line per gate, or whatever `heading`
    says they are; `facts` are pairs."""

    headline: str
    who: str = ""
    reason: str = ""
    criteria: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    heading: str = "Criteria"

    @property
    def summary(self) -> str:
        """All of it in one line, for subjects of chat messages."""
        head = self.headline if self.headline.endswith(("!", "?")) else f"{self.headline}."
        why = f": '{one_line(self.reason)}'" if self.reason else ""
        tail = f" {'; '.join(self.criteria)}." if self.criteria else ""
        return f"{head} {self.who}{why}.{tail}" if self.who else f"{head}{tail}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def criteria_lines(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    return tuple(criterion_line(criterion) for criterion in criteria)


def criterion_line(criterion: Criterion) -> str:
    """`accuracy 0.971 >= 0.9 passed`: the expression with the values it saw, as far as the message tells them."""
    message, text = one_line(criterion.message), one_line(criterion.expression)
    values = dict(_VALUE.findall(message))
    note = one_line(_VALUE.sub("", message)).strip(" ,;")
    for name in sorted(values, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f"{_short(name)} {values[name]}", text)
    if not values and note:
        text, note = note, ""
    named = text if text.startswith(criterion.gate) else f"{criterion.gate}: {text}"
    result = _RESULTS.get(criterion.result, criterion.result)
    return f"{named} {result}" + (f" ({note})" if note else "")


def _short(name: str) -> str:
    return name.replace("candidate.metrics.", "").replace("baseline.metrics.", "baseline ")


def names_of(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def by(verb: str, actor: Any) -> str:
    return f"{verb} by {actor}" if actor else ""


def goal(event: Transition, *, now: bool = True) -> str:
    """What a transition wants of its version."""
    if event.to_stage.startswith("@"):
        return f"become {event.to_stage}"
    return f"enter {event.to_stage}" + (f" (now {event.from_stage})" if now else "")
