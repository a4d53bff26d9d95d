"""What a policy asks that can never come true: it would lock what it is about, or be about nothing."""

import re
from collections.abc import Iterator
from datetime import timedelta

from policy.gates import compiled
from policy.schedule import HORIZON, duration
from policy.spec import Match, Spec

Place = tuple[str | int, ...]
# Patterns of names of workspaces and policies; what is in brackets is taken to fit.
_PLAIN = re.compile(r"[a-z0-9*?](?:[a-z0-9*?-]*[a-z0-9*?])?")
_BRACKETS = re.compile(r"\[!?\]?[^]]*\]")


def impossible(spec: Spec) -> Iterator[tuple[Place, str]]:
    """Fields of the spec, and why they can never hold."""
    yield from _about_nothing(spec.match)
    yield from _about_policies(spec)
    yield from _never_open(spec)
    yield from _unasked(spec)


def _about_nothing(match: Match) -> Iterator[tuple[Place, str]]:
    transition, to = match.transition, match.transition.to
    alias = to is not None and to.startswith("@")
    if alias and transition.kind == "promotion":
        yield ("match", "transition", "to"), f"no promotion goes to an alias; write {{kind: alias, to: {to!r}}}"
    if to is not None and not alias and transition.kind == "alias":
        yield ("match", "transition", "to"), f"an alias is written with @; did you mean '@{to}'?"
    if transition.kind == "policy":
        for name, value in (("from", transition.from_stage), ("to", to)):
            if value is not None:
                yield ("match", "transition", name), "a change of a policy has no stages"
    origin, about_policies = transition.from_stage, transition.kind == "policy"
    if origin is not None and to is not None and origin.lower() == to.lower():
        yield ("match", "transition", "from"), "nothing goes where it is already"
    field, globs = ("models", match.models) if about_policies else ("workspaces", match.workspaces)
    for n, glob in enumerate(globs):
        if not _PLAIN.fullmatch(_BRACKETS.sub("?", glob)):
            told = f"no name is like {glob!r}: they are of lower case letters and digits, with - in between"
            yield ("match", field, n), told
    for n, glob in enumerate(() if about_policies else match.models):
        if "[" not in glob and (alien := [sign for sign in "/:" if sign in glob]):
            yield ("match", "models", n), f"no name holds {alien[0]!r}; workspaces are matched by 'workspaces'"


def _about_policies(spec: Spec) -> Iterator[tuple[Place, str]]:
    """A change of a policy has no version, no workspace and no fields: with some, no policy could be changed again."""
    if spec.match.transition.kind != "policy":
        return
    alien: dict[Place, object] = {
        ("match", "workspaces"): spec.match.workspaces,
        ("match", "tags"): spec.match.tags,
        ("match", "when"): spec.match.when,
        ("request", "fields"): spec.request.fields,
        ("request", "evidence"): spec.request.evidence,
        ("gates",): spec.gates,
        ("unsafe_artifact",): spec.unsafe_artifact,
        ("validity",): spec.validity,
        ("break_glass",): spec.break_glass,
    }
    for place, value in alien.items():
        if value:
            yield place, "a policy about policies cannot have it"


def _never_open(spec: Spec) -> Iterator[tuple[Place, str]]:
    after = None if spec.request.expires_after is None else duration(spec.request.expires_after)
    wait = spec.schedule.min_wait
    if after is not None and wait is not None and duration(wait) >= after:
        yield ("schedule", "min_wait"), f"it would always expire first, after {spec.request.expires_after}"
    rules = {rule.id for rule in spec.approvals.rules}
    for n, step in enumerate(spec.escalation):
        if step.rule is not None and step.rule not in rules:
            yield ("escalation", n, "rule"), f"there is no rule {step.rule}"
        if after is not None and duration(step.after) >= after:
            yield ("escalation", n, "after"), f"it would always expire first, after {spec.request.expires_after}"
    for n, freeze in enumerate(spec.schedule.freezes):
        since, until = freeze.span()
        if until - since > HORIZON:
            yield ("schedule", "freezes", n), f"nothing may be frozen for more than {HORIZON // timedelta(days=1)} days"


def _unasked(spec: Spec) -> Iterator[tuple[Place, str]]:
    """Gates whose inconclusive result would ask somebody, and nobody is named."""
    defaults = spec.gate_defaults
    if defaults.asks or spec.approvals.rules:
        return
    for n, gate in enumerate(spec.gates):
        first = gate.on_no_baseline or defaults.on_no_baseline
        compares = gate.cel is not None and compiled(gate.cel).compares and first == "inconclusive"
        unsure = compares or (gate.on_error or defaults.on_error) == "inconclusive"
        blocks = (gate.level or defaults.level) == "block" and not gate.never_skip
        if unsure and blocks and not gate.asks and not gate.waivable_by:
            what = "without a baseline" if compares else "on an error"
            told = f"it is inconclusive {what}, and nobody is asked then: name them in 'asks', or have a rule"
            yield ("gates", n), told
