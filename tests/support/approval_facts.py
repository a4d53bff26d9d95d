"""What has happened, as the naive oracle of approvals keeps it: all of it told by the test, nothing by the service."""

import json
from copy import deepcopy
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
    """A vote that was taken. `basis`: all that the request rested on then; `groups`: of whose right it is, then."""

    who: str
    behalf: str | None
    choice: str
    rule: str
    at: datetime
    basis: str
    groups: frozenset[str]

    @property
    def whose(self) -> str:
        return self.behalf or self.who


@dataclass(frozen=True)
class Waived:
    gate: str
    by: str
    basis: str
    groups: frozenset[str]


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
    had to be decided, first and by everything it was bound to since; `escalated`, whom the steps that were taken let
    vote for which rule; `reviews`, who said whether the emergency was one, and `reviewed`, whether that is enough;
    `by_people`, whether people were asked and let it pass; `holds_until`, how long the approval holds, and `told`,
    whether the registry has told what became of it."""

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
    escalated: set[tuple[str, frozenset[str]]] = field(default_factory=set)
    glass: Glass | None = None
    reviews: list[tuple[str, bool, datetime]] = field(default_factory=list)
    reviewed: bool = False
    status: str = "open"
    overdue: bool = False
    by_people: bool = False
    holds_until: datetime | None = None
    told: bool = False
    sealed: "tuple[dict[str, tuple[str, str]], Doc] | None" = None  # the policies and inputs it was decided by

    @property
    def standing_reviews(self) -> list[tuple[str, bool, datetime]]:
        """From the last objection on."""
        objections = [n for n, (_, justified, _) in enumerate(self.reviews) if not justified]
        return self.reviews[objections[-1] :] if objections else self.reviews


@dataclass(frozen=True)
class Told:
    """In which groups somebody is, by a token of that time, or by the directory."""

    groups: frozenset[str]
    person: bool
    at: datetime


@dataclass(frozen=True)
class Member:
    """Groups are given by the newest token; what the directory has told since only takes away."""

    token: Told | None = None
    directory: Told | None = None

    @property
    def _said(self) -> list[Told]:
        told, token = self.directory, self.token
        later = told if told is not None and (token is None or told.at > token.at) else None
        return [one for one in (token, later) if one is not None]

    @property
    def groups(self) -> frozenset[str]:
        return frozenset.intersection(*(one.groups for one in self._said)) if self.token else frozenset()

    @property
    def person(self) -> bool:
        return all(one.person for one in self._said)

    def with_token(self, token: Told) -> "Member":
        return self if self.token is not None and token.at < self.token.at else replace(self, token=token)


@dataclass
class Facts:
    """`delegations`: those of now and of later; `granted`: who was ever to vote for whom."""

    policies: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: text, who published it
    models: dict[str, Doc] = field(default_factory=dict)
    versions: dict[tuple[str, int], Doc] = field(default_factory=dict)
    stays: list[tuple[str, int, str]] = field(default_factory=list)  # model, version, stage: the latest entry last
    members: dict[str, Member] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)
    delegations: dict[str, tuple[str, str, datetime, datetime]] = field(default_factory=dict)
    granted: list[tuple[str, str]] = field(default_factory=list)  # delegator, delegate
    asked: dict[str, Asked] = field(default_factory=dict)

    def one(self, name: str) -> str:
        """Who it is, of whatever account."""
        return self.emails.get(name, name).lower()

    def _member(self, actor: Actor) -> Member:
        token = Told(actor.groups, actor.person, actor.auth_at)
        return self.members.get(actor.name, Member()).with_token(token)

    def counting(self, actor: Actor) -> Actor:
        """The actor with the groups that count."""
        member = self._member(actor)
        return replace(actor, groups=member.groups, person=actor.person and member.person)

    def acts(self, actor: Actor) -> Actor:
        """As `counting`; what their token tells is known from now on."""
        self.members[actor.name] = self._member(actor)
        return self.counting(actor)

    def inputs(self, a: Asked) -> Doc:
        """What policies see."""
        if a.sealed is not None:
            return a.sealed[1]
        request: Doc = {"to": a.target, "from": a.origin, "kind": a.kind, "by": a.by, "fields": a.fields}
        if a.policy is not None:
            model = {"workspace": "*", "name": a.model, "tags": {}}
            return {"candidate": None, "baseline": None, "model": model, "request": request}
        others = [v for m, v, stage in self.stays if (m, stage) == (a.model, a.target) and v != a.version]
        request["beforehand"] = self._beforehand(a, others[-1]) if others else None
        return {
            "candidate": self.versions[a.model, a.version],
            "baseline": self.versions[a.model, others[-1]] if others else None,
            "model": self.models[a.model],
            "request": request,
        }

    def in_force(self, a: Asked) -> dict[str, tuple[str, str]]:
        """The policies of now, or those that the request was decided by."""
        return self.policies if a.sealed is None else a.sealed[0]

    def seal(self, a: Asked) -> None:
        a.sealed = (dict(self.policies), deepcopy(self.inputs(a)))

    def _beforehand(self, a: Asked, there: int) -> str | None:
        """The request that let the version in which is there now, if people saw it name this one to roll back to."""
        place = (a.model, there, a.target)
        let_in = [b for b in self.asked.values() if b.status == "approved" and (b.model, b.version, b.target) == place]
        if a.kind != "rollback" or not let_in or not let_in[-1].by_people:
            return None
        return let_in[-1].id if let_in[-1].fields.get("rollback_to") == str(a.version) else None

    def moved(self, model: str, version: int, target: str) -> None:
        """A version enters a stage and leaves the one it was in; an alias leaves the version that it pointed at."""
        alias = target.startswith("@")
        self.stays = [
            (m, v, stage)
            for m, v, stage in self.stays
            if m != model or (stage != target if alias else v != version or stage.startswith("@"))
        ]
        self.stays.append((model, version, target))
        entered = self.versions[model, version]
        entered["stages"] = sorted({*entered["stages"], target})

    def frozen(self, model: str, at: datetime) -> bool:
        """Whether somebody objects to an emergency of the model, or too few have looked at it in time."""
        return any(
            (a.glass.freezes and at >= a.glass.review_by) or any(not good for _, good, _ in a.standing_reviews)
            for a in self.asked.values()
            if a.model == model and a.status == "approved" and a.glass is not None and not a.reviewed
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
