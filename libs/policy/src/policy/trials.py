r"""Unit tests of policies: files `*.test.yaml` with cases, and what the policies are expected to make of them.

```yaml
policies: [production.yaml, ../shared/rollback.yaml]    # relative to this file; all of them are in force
given:                                                  # optional, for every case
  candidate: {metrics: {accuracy: 0.95}}
cases:
  - name: a reviewer lets a good model into production
    votes: [{by: ben, groups: [reviewers]}]
    expect: {verdict: approved}

  - name: nobody approves their own request
    request: {requested_by: ana}
    votes: [{by: ana, groups: [reviewers], refused: own-request}]
    expect: {verdict: waiting, phase: people, reason: "review: 0 of 1"}

  - name: a worse model than the present one is refused before anybody is asked
    candidate: {metrics: {accuracy: 0.90}}
    baseline: {metrics: {accuracy: 0.94}}
    expect: {verdict: rejected, gates: {no-regression: fail}}
```

A case says what differs from the usual; everything may be left out but `name` and `expect`:

- `request`: `kind` (promotion, rollback, alias or policy), `from` (Staging), `to` (Production), `requested_by`
  (requester), `reason` (a long one), `fields`, `policy_editors`.
- `model`: `workspace` (default), `name` (model), `owner`, `description`, `tags`.
- `candidate`, and `baseline` (none): `version`, `metrics`, `parameters`, `tags`, `stages` (where it comes from),
  `artifact`, `environment`, `lineage`, `signature`, `owner`, `notes`, `registered_by` (author), `registered_at`,
  `trained_at`, `training_seconds`, `evaluations: [{dataset, metrics, evaluated_at}]`, `evidence: [type, ...]`,
  `attestations: [{type, result, posted_by, groups, title, digest, service, at}]` (result: pass; posted by ci, a
  service, with a file; `digest: null`: without one), `unsafe`, `revoked`.
- `votes`: `by`, `groups`, `choice` (approve), `comment`, `on_behalf_of`, `rule`, `email`, `person` (true), `at`,
  `method`, `signed_in` (how long before, such as 10m), `refused` (the code with which it must be refused).
- `waivers`: `gate`, `by`, `groups`, `reason`, `at`, `method`. `answers`: what webhooks said, by gate.
- `break_glass`: `by`, `groups`, `reason`, `at`, `method`, `signed_in`, `person`, `refused`.
- `at`: when the case is judged, in quotes (2026-01-14T12:00:00Z, a Wednesday). `opened_at` (half a day before `at`):
  where it is given, the request expires and escalates as the policies say; without it, it does neither.
- `frozen`: the review of an emergency is overdue.
- `expect`: `verdict` (approved, rejected, expired or waiting), `phase` (gates, people, schedule, frozen or decided),
  `gates` (results by id), `policies` (the names of those that apply), `escalated` (what the escalation has done by
  then, in order: remind, notify, add_approvers), `reason` (a regular expression).

A vote that is refused although the case does not say so fails it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from contracts.approval import Choice, GateAnswered
from policy.case import Ballot, Case, Person, Refusal
from policy.document import parse
from policy.glass import broken
from policy.matching import InForce, applicable
from policy.needs import UNSAFE_GATE, Needs, added_by, needs_of
from policy.outlook import Outlook, not_in_time, outlook
from policy.people import judged
from policy.reader import Mistake, PolicyError, Reader, checked
from policy.schedule import duration
from policy.situation import Act, Expected, Situation, TrialFile, refs

SUFFIX = ".test.yaml"
MAX_FILE = 1_000_000


@dataclass(frozen=True)
class TrialResult:
    """How one case went; `case` is empty when the file itself cannot be used. `line` counts from 1."""

    file: str
    line: int
    case: str
    ok: bool
    text: str


def run(path: Path) -> list[TrialResult]:
    """Runs a file of tests, or every `*.test.yaml` below a directory. Files that cannot be used are failures."""
    files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    found: list[TrialResult] = []
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            found.append(TrialResult(name, 1, "", ok=False, text=f"cannot be read: {error}"))
            continue
        found += run_text(name, text, partial(_beside, file))
    return found


def _beside(file: Path, name: str) -> str:
    return (file.parent / name).read_text(encoding="utf-8")


def run_text(file: str, text: str, read: Callable[[str], str]) -> list[TrialResult]:
    """Runs the cases of one file; `read` gives the text of a policy that it names."""
    try:
        if len(text) > MAX_FILE:
            raise PolicyError([Mistake(1, "", f"longer than {MAX_FILE} characters")])
        data, lines = Reader(numbers=True).read(text)
        trials = checked(TrialFile, data, lines)
    except PolicyError as error:
        return [TrialResult(file, m.line, "", False, f"{m.field or 'document'}: {m.message}") for m in error.mistakes]
    policies = []
    for n, name in enumerate(trials.policies):
        try:
            policies.append(parse(read(name)))
        except (OSError, ValueError) as error:
            return [TrialResult(file, lines["policies", n], "", False, f"{name}: {error}")]
    names = [policy.name for policy in policies]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        return [TrialResult(file, lines["policies",], "", False, f"two of the policies are called {doubles[0]}")]
    found = []
    for n, case in enumerate(trials.cases):
        problems, summary = _tried(refs(policies), trials.situation(case), case.expect)
        result = "\n".join(problems) or summary
        found.append(TrialResult(file, lines["cases", n], case.name, not problems, result))
    return found


def _tried(policies: InForce, given: Situation, expected: Expected) -> tuple[list[str], str]:
    """What is not as expected, and how the case stands."""
    inputs = given.inputs()
    bound = applicable(policies, inputs, given.at)
    case = given.case(inputs)
    needs = needs_of(bound, inputs, opened_at=case.opened_at, now=given.at)
    known = {f"{ref.name}/{gate.id}" for ref, policy in policies for gate in policy.spec.gates}
    case, problems = _acted(given, case, needs, known)
    frozen = "the model is frozen" if given.frozen else None
    until = _until(given, case, needs)
    at = min(given.at, until - timedelta.resolution)
    then = needs_of(bound, inputs, opened_at=case.opened_at, now=at)
    found = outlook(replace(case, added=_added(given, needs, at)), then, at, frozen=frozen)
    verdict = str(found.verdict or "waiting")
    if found.verdict is None and given.at >= until:
        verdict, found = "expired", replace(found, reason=f"{not_in_time(until)}: {found.reason}")
    problems += _unlike(expected, given, needs, found, verdict)
    passed = {gate.gate for gate in found.gates if gate.result == "waived"}
    if problems:
        idle = [waiver for waiver in case.waivers if waiver.gate not in passed]
        problems += [f"note: the waiver of {waiver.gate} by {waiver.by} has no effect" for waiver in idle]
    return problems, f"{verdict}{f' ({found.phase})' if verdict == 'waiting' else ''}: {found.reason}"


# -- what time does -----------------------------------------------------------------------------------------------


def _until(given: Situation, case: Case, needs: Needs) -> datetime:
    """When the request expires."""
    until = datetime.fromisoformat(case.inputs["request"]["expires_at"])
    after = needs.expires_after if given.opened_at is not None else None
    return until if after is None else min(until, case.opened_at + after)


def _added(given: Situation, needs: Needs, at: datetime) -> dict[str, frozenset[str]]:
    return added_by(needs, at) if given.opened_at is not None else {}


# -- what people do -----------------------------------------------------------------------------------------------


def _acted(given: Situation, case: Case, needs: Needs, known: set[str]) -> tuple[Case, list[str]]:
    """The case after all votes, answers and the emergency, and what went otherwise than the test says. `known`: the
    gates of all policies, whether or not they apply."""
    problems = []
    answers = []
    for name, result in given.answers.items():
        gate = _gate(known, name)
        if gate is None:
            problems.append(f"answers: there is no gate {name}")
        else:
            answers.append(
                GateAnswered(request_id="t-1", gate=gate, result=result, by="test", request_digest=case.request_digest)
            )
    waivers = tuple(one.model_copy(update={"gate": _gate(known, one.gate) or one.gate}) for one in case.waivers)
    case = replace(case, answers=tuple(answers), waivers=waivers)
    for vote in given.votes:
        comment = ("because" if vote.choice is Choice.REJECT else "") if vote.comment is None else vote.comment
        ballot = Ballot(vote.choice, comment, rule=vote.rule)
        voter, principal = _person(vote, given, needs), None
        if vote.on_behalf_of is not None:
            principal = replace(voter, subject=vote.on_behalf_of, person=True, email=None)
            voter = replace(voter, groups=frozenset())
        at = vote.at or given.at
        if at > given.at:
            problems.append(f"the vote of {vote.by} is cast after the case is judged")
        if at >= _until(given, case, needs):
            problems += _refused(f"the vote of {vote.by}", vote, Refusal("request-expired", "it had expired"))
            continue
        then = replace(case, added=_added(given, needs, at))
        outcome = judged(then, needs, voter, ballot, at, principal)
        problems += _refused(f"the vote of {vote.by}", vote, outcome)
        if outcome is not None and not isinstance(outcome, Refusal):
            case = replace(case, votes=(*case.votes, outcome))
    if (glass := given.break_glass) is not None:
        person, at = _person(glass, given, needs), glass.at or given.at
        done = broken(needs, person, glass.reason, at, case.request_digest)
        problems += _refused(f"the emergency of {glass.by}", glass, done)
        if not isinstance(done, Refusal):
            case = replace(case, glass=done)
    return case, problems


def _person(act: Act, given: Situation, needs: Needs) -> Person:
    at = act.at or given.at
    return Person(
        subject=act.by,
        groups=frozenset(act.groups),
        person=act.person,
        may_vote=True,
        method=act.method or min(needs.methods or ("token",)),
        authenticated_at=at - duration(act.signed_in) if act.signed_in else at,
        email=act.email,
    )


def _refused(what: str, act: Act, outcome: object) -> list[str]:
    """How the outcome is not what the test says."""
    if isinstance(outcome, Refusal):
        if act.refused is None:
            return [f"{what} is refused: {outcome.code} ({outcome.detail})"]
        if act.refused != outcome.code:
            return [f"{what}: expected to be refused with {act.refused}, found {outcome.code} ({outcome.detail})"]
        return []
    return [f"{what}: expected to be refused with {act.refused}, found that it is taken"] if act.refused else []


# -- what is expected ---------------------------------------------------------------------------------------------


def _unlike(expected: Expected, given: Situation, needs: Needs, found: Outlook, verdict: str) -> Iterator[str]:
    stands = f"{found.phase}: {found.reason}"
    if expected.verdict not in (None, verdict):
        yield f"verdict: expected {expected.verdict}, found {verdict} ({stands})"
    if expected.phase not in (None, found.phase):
        yield f"phase: expected {expected.phase}, found {stands}"
    names = [ref.name for ref in needs.policies]
    if expected.policies is not None and sorted(expected.policies) != sorted(names):
        yield f"policies: expected {_list(expected.policies)}, found {_list(names)}"
    said = {gate.gate: gate for gate in found.gates}
    for name, result in expected.gates.items():
        gate = said.get(_gate(said, name) or name)
        if gate is None:
            yield f"gates: expected {name} to be {result}, found no such gate; there are {_list(said)}"
        elif gate.result != result:
            yield f"gates: expected {name} to be {result}, found {': '.join(filter(None, (gate.result, gate.message)))}"
    steps = [step.action for step in needs.steps if given.opened_at is not None and step.due <= given.at]
    if expected.escalated is not None and list(expected.escalated) != steps:
        yield f"escalated: expected {_list(expected.escalated)}, found {_list(steps)}"
    if expected.reason is not None and not re.search(expected.reason, found.reason):
        yield f"reason: expected to find {expected.reason!r} in {found.reason!r}"


def _gate(ids: Collection[str], name: str) -> str | None:
    """The full id of a gate that is given by it, or without the policy's name."""
    short = [one for one in ids if one.partition("/")[2] == name]
    return name if name in {*ids, UNSAFE_GATE} else short[0] if len(short) == 1 else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
