"""Policy documents: YAML read strictly, with errors that name the line and the field.

The digest is the SHA-256 of the canonical JSON of the document as parsed, so anybody can compute it from the text.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator

from approval.domain import Rule, digest_of
from approval.gates import MAX_EXPRESSION, GateError, NoBaseline, compiled
from contracts.canonical import canonical_json
from contracts.payload import Line, Payload, StageName, Target

MAX_DOCUMENT = 10_000
MAX_DEPTH = 20
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=MAX_EXPRESSION, pattern=r"^[^\x00]*$")]
Group = Annotated[str, StringConstraints(pattern=r"^group:[\x21-\x7e]{1,200}$")]
Excluded = Literal["requester", "version.author"]


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a document. `line` counts from 1."""

    line: int
    field: str
    message: str


class PolicyError(ValueError):
    """A document that is no policy."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(f"line {m.line}, {m.field or 'document'}: {m.message}" for m in mistakes))


def _checked(expression: str) -> str:
    try:
        compiled(expression)
    except GateError as error:
        raise ValueError(str(error)) from error
    return expression


def _unique(value: tuple[Any, ...]) -> tuple[Any, ...]:
    ids = [item.id for item in value]
    doubles = sorted({i for i in ids if ids.count(i) > 1})
    if doubles:
        raise ValueError(f"ids must differ: {', '.join(doubles)}")
    return value


class TransitionMatch(Payload):
    """Which transitions a policy is about. Without `kind` it is about promotions; a rollback must be named, and a
    protected alias too: `{kind: alias, to: "@champion"}`."""

    from_stage: Annotated[StageName | None, Field(alias="from")] = None
    to: Target | None = None
    kind: Literal["promotion", "rollback", "alias", "any"] = "promotion"


class Match(Payload):
    transition: TransitionMatch
    when: Expression | None = None

    @field_validator("when")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None and compiled(_checked(value)).compares:
            raise ValueError("may not look at 'baseline'")
        return value


class GateSpec(Payload):
    id: Name
    cel: Expression
    message: Line | None = None
    level: Literal["block", "warn"] = "block"
    on_no_baseline: NoBaseline = "inconclusive"

    _compiles = field_validator("cel")(_checked)


class RuleSpec(Payload):
    id: Name
    meaning: Line
    groups: Annotated[tuple[Group, ...], Field(alias="from", min_length=1, max_length=20)]
    count: Annotated[int, Field(ge=1, le=20)] = 1


class SeparationOfDuties(Payload):
    """Stated by the author, and cannot be less than both."""

    exclude: tuple[Excluded, ...] = ("requester", "version.author")

    @field_validator("exclude")
    @classmethod
    def _both(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if set(value) != {"requester", "version.author"}:
            raise ValueError("must name requester and version.author: four eyes cannot be switched off")
        return value


class Approvals(Payload):
    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=20)] = ()
    separation_of_duties: SeparationOfDuties = SeparationOfDuties()

    _ids = field_validator("rules")(_unique)


class RequestSpec(Payload):
    expires_after: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[smhd]$")] | None = None


class Spec(Payload):
    match: Match
    request: RequestSpec = RequestSpec()
    gates: Annotated[tuple[GateSpec, ...], Field(max_length=30)] = ()
    approvals: Approvals = Approvals()

    _ids = field_validator("gates")(_unique)


class Metadata(Payload):
    name: Name
    owner: Line | None = None


class PolicyDocument(Payload):
    api_version: Annotated[Literal["registry.dev/v1"], Field(alias="apiVersion")] = "registry.dev/v1"
    kind: Literal["PromotionPolicy"]
    metadata: Metadata
    spec: Spec


@dataclass(frozen=True)
class Policy:
    """A document that was read, with its digest."""

    document: PolicyDocument
    text: str
    digest: str

    @property
    def name(self) -> str:
        return self.document.metadata.name

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rule ids carry the policy's name: two policies that both ask are asked apart."""
        return tuple(
            Rule(f"{self.name}/{r.id}", frozenset(g.removeprefix("group:") for g in r.groups), r.count, r.meaning)
            for r in self.document.spec.approvals.rules
        )

    @property
    def expires_after(self) -> timedelta | None:
        text = self.document.spec.request.expires_after
        return timedelta(**{UNITS[text[-1]]: int(text[:-1])}) if text else None


@lru_cache(maxsize=500)
def parse(text: str) -> Policy:
    """Reads a policy.

    Raises:
        PolicyError: with every mistake, its line and its field.
    """
    if len(text) > MAX_DOCUMENT:
        raise PolicyError([Mistake(1, "", f"longer than {MAX_DOCUMENT} characters")])
    data, lines = _Reader().read(text)
    try:
        document = PolicyDocument.model_validate_json(canonical_json(data), strict=True)
    except UnicodeEncodeError as error:
        raise PolicyError([Mistake(1, "", "holds half a character (a lone surrogate)")]) from error
    except ValidationError as error:
        raise PolicyError([_mistake(e, lines) for e in error.errors(include_url=False)]) from error
    return Policy(document, text, digest_of(data))


def _mistake(error: Any, lines: dict[tuple[str | int, ...], int]) -> Mistake:
    path = tuple(error["loc"])
    near = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in lines), ())
    message = {"extra_forbidden": "unknown field", "missing": "missing"}.get(error["type"], error["msg"])
    return Mistake(lines.get(near, 1), ".".join(str(part) for part in path), message.removeprefix("Value error, "))


class _Reader:
    """YAML to plain values, with the line of each path. Refuses what JSON cannot say: doubled keys, aliases, dates."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._scalars = yaml.SafeLoader("")

    def read(self, text: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
        try:
            depth = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise _at(event.start_mark, "", "aliases are not allowed")
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > MAX_DEPTH:  # the parser's time grows with the square of it
                    raise _at(event.start_mark, "", f"nested more than {MAX_DEPTH} deep")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is None:
                raise PolicyError([Mistake(1, "", "empty")])
            return self._value(node, ()), self.lines
        except yaml.MarkedYAMLError as error:
            raise _at(error.problem_mark, "", f"not YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            if isinstance(error, PolicyError):
                raise
            raise PolicyError([Mistake(1, "", f"not YAML: {_first_line(error)}")]) from error

    def _value(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self.lines[path] = node.start_mark.line + 1
        where = ".".join(str(part) for part in path)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise _at(node.start_mark, where, f"unknown tag {node.tag}")
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = self._scalars.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
                if not isinstance(key, str):
                    raise _at(key_node.start_mark, where, "keys must be text")
                if key in found:
                    raise _at(key_node.start_mark, where, f"{key!r} is given twice")
                found[key] = self._value(value_node, (*path, key))
                self.lines[(*path, key)] = key_node.start_mark.line + 1
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, n)) for n, item in enumerate(node.value)]
        value = self._scalars.construct_object(node)
        if not isinstance(value, str | int | bool | None):
            raise _at(node.start_mark, where, "write it in quotes")
        return value


def _at(mark: Any, field: str, message: str) -> PolicyError:
    return PolicyError([Mistake(mark.line + 1 if mark else 1, field, message)])


def _first_line(error: Exception) -> str:
    return re.split(r"\n", str(error))[0][:200] or type(error).__name__
