"""What is found when a decision is judged again: named checks."""

from dataclasses import dataclass, field
from typing import Literal

from contracts.approval import Decision

Result = Literal["ok", "failed", "not checkable"]


@dataclass(frozen=True)
class Check:
    """`name` is stable, the text is a sentence for people. `not checkable`: the record alone cannot tell."""

    name: str
    result: Result
    text: str


@dataclass(frozen=True)
class Judgement:
    """`decision` is None when the record holds none that can be read."""

    checks: tuple[Check, ...]
    decision: Decision | None

    @property
    def ok(self) -> bool:
        """Nothing failed. What could not be checked is no failure."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.result == "failed")


@dataclass
class Findings:
    """Checks as they are made."""

    checks: list[Check] = field(default_factory=list)

    def ok(self, name: str, text: str) -> None:
        self.checks.append(Check(name, "ok", text))

    def failed(self, name: str, text: str) -> None:
        self.checks.append(Check(name, "failed", text))

    def unknown(self, name: str, text: str) -> None:
        self.checks.append(Check(name, "not checkable", text))

    def say(self, name: str, problem: str | None, good: str) -> None:
        """Failed with the problem if there is one."""
        if problem is None:
            self.ok(name, good)
        else:
            self.failed(name, problem)
