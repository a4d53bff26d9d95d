"""What has happened, as the naive oracle of approvals keeps it: all of it told by the test, nothing by the service."""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import yaml

Doc = dict[str, Any]


@dataclass(frozen=True)
class Actor:
    """Somebody who acts, as their token tells. `auth_at`: when they signed in."""

    name: str
    groups: frozenset[str]
    auth_at: datetime
    person: bool = True
    method: str = "token"
    email: str | None = None


@dataclass(frozen=True)
class Cast:
    """A vote that was taken. `basis`: all that the request rested on then."""

    who: str
    behalf: str | None
    choice: str
    rule: str
    at: datetime
    email: str | None
    basis: str

    @property
    def whose(self) -> str:
        return self.behalf or self.who


@dataclass(frozen=True)
class Waived:
    gate: str
    by: str
    basis: str


@dataclass(frozen=True)
class Glass:
    """A broken glass. `count` people of `review` have to look until `review_by`; else the model may freeze."""

    by: str
    basis: str
    until: datetime
    skips: frozenset[str]
    review: frozenset[str]
    count: int
    review_by: datetime
    freezes: bool


@dataclass
class Asked:
    """A request, and what has happened to it. `policy` is the text that a change of policy asks for; `limits`, when it
    had to be decided, first and by everything it was bound to since; `added`, whom escalations let vote, by rule."""

    id: str
    kind: str
    model: str
    version: int
    origin: str
    target: str
    by: str
    reason: str
    fields: dict[str, str]
    opened_at: datetime
    expires_at: datetime
    bound_at: datetime
    policy: str | None = None
    limits: list[datetime] = field(default_factory=list)
    votes: list[Cast] = field(default_factory=list)
    waivers: list[Waived] = field(default_factory=list)
    answers: list[tuple[str, str, str]] = field(default_factory=list)  # gate, basis, result
    added: dict[str, set[str]] = field(default_factory=dict)
    glass: Glass | None = None
    reviews: set[str] = field(default_factory=set)
    status: str = "open"
    overdue: bool = False

    @property
    def reviewed(self) -> bool:
        return self.glass is not None and len(self.reviews) >= self.glass.count


@dataclass
class Member:
    """Of whom the directory or a token has told. `told_at`: when the directory did; its word goes before that of a
    token from before."""

    groups: frozenset[str]
    person: bool
    told_at: datetime | None = None


@dataclass
class Facts:
    policies: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: text, who published it
    models: dict[str, Doc] = field(default_factory=dict)
    versions: dict[tuple[str, int], Doc] = field(default_factory=dict)
    stays: list[tuple[str, int, str]] = field(default_factory=list)  # model, version, stage: the latest entry last
    members: dict[str, Member] = field(default_factory=dict)
    delegations: dict[str, tuple[str, str, datetime, datetime]] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)

    def acts(self, actor: Actor) -> Actor:
        """The actor with the groups that count, which are known from now on."""
        known = self.members.get(actor.name)
        if known is not None and known.told_at is not None and actor.auth_at < known.told_at:
            return replace(actor, groups=known.groups, person=known.person and actor.person)
        if known is None or (known.groups, known.person) != (actor.groups, actor.person):
            self.members[actor.name] = Member(actor.groups, actor.person)
        return actor

    def inputs(self, a: Asked) -> Doc:
        """What the expressions of policies see."""
        request = {"to": a.target, "from": a.origin, "kind": a.kind, "fields": a.fields}
        if a.policy is not None:
            return {"candidate": None, "baseline": None, "model": {"name": a.model, "tags": {}}, "request": request}
        others = [v for m, v, stage in self.stays if (m, stage) == (a.model, a.target) and v != a.version]
        return {
            "candidate": self.versions[a.model, a.version],
            "baseline": self.versions[a.model, others[-1]] if others else None,
            "model": self.models[a.model],
            "request": request,
        }

    def frozen(self, model: str) -> bool:
        """Whether nobody looked at an emergency of the model in time."""
        return any(
            a.model == model and a.overdue and a.glass is not None and a.glass.freezes and not a.reviewed
            for a in self.asked.values()
        )


@lru_cache(maxsize=10_000)
def read(text: str) -> Doc:
    """The `spec` of a policy."""
    spec: Doc = yaml.safe_load(text)["spec"]
    return spec


@lru_cache(maxsize=10_000)
def canonical(text: str) -> str:
    return json.dumps(yaml.safe_load(text), sort_keys=True)


def span(text: str) -> timedelta:
    """`90m` as a timedelta."""
    names = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{names[text[-1]]: int(text[:-1])})


def least(texts: Any) -> timedelta | None:
    return min((span(text) for text in texts if text), default=None)


def plain(names: Any) -> frozenset[str]:
    """`group:risk` as `risk`."""
    return frozenset(name.removeprefix("group:") for name in names or ())
