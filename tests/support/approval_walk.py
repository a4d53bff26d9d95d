"""The world of a random walk through approvals: its people, a database for each walk, and the weights of its steps."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from tests.integration.approval.conftest import Direct, make_direct, make_settings, service_url
from tests.support.approval_facts import Actor

from approval.domain import Request
from contracts.access import Action
from embedded.fixtures import run
from kit.auth import Principal
from kit.problems import Problem
from policy.case import Person
from policy.reader import PolicyError

T = TypeVar("T")
Step = Callable[..., None]
PEOPLE = {
    "ana": "ml-engineers",
    "ben": "reviewers",
    "bo": "reviewers",
    "rita": "risk",
    "rolf": "risk",
    "lea": "leads reviewers",
    "lou": "leads",
    "sue": "security",
    "otto": "oncall",
    "olga": "oncall risk",
    "carl": "reviewers ml-engineers",  # the author of every version
    "cem": "reviewers risk",  # whose commits are in them, by e-mail address
    "max": "risk leads",  # and whose, by name
    "dora": "security",
    "alt": "reviewers",  # who is ana, by another account
    "bot": "reviewers risk leads oncall",  # no person
    "root": "admins",
    "vera": "admins",
    "adam": "admins",
}
EMAILS = {"cem": "Cem@Example.org", "dora": "dora@example.org", "ana": "Ana@Example.org", "alt": "ana@example.org"}
COMMITTERS = ("cem@example.org", "MAX")
METRICS = {1: {"accuracy": 0.95, "p95": 80.0}, 2: {"accuracy": 0.92, "p95": 120.0}}
MODELS, VERSIONS = ["risky", "plain"], [1, 2]
EVERYBODY = sorted(PEOPLE)
VOTERS = ["ben", "bo", "rita", "rolf", "lea", "lou", "olga", "alt"]
NTH = range(4)
OPEN_AT_MOST = 3


def groups_of(name: str) -> frozenset[str]:
    return frozenset(PEOPLE[name].split())


class Steps:
    """The steps of a walk by name: how likely each is, and what it may be given."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {}

    def __call__(self, weight: int, **given: Sequence[Any]) -> Callable[[Step], Step]:
        def noted(step: Step) -> Step:
            self._known[step.__name__] = (weight, given)
            return step

        return noted

    def draw(self, random: Random, name: str | None = None) -> tuple[str, dict[str, Any]]:
        """One of the steps, or the one of that name, with what it is given."""
        if name is None:
            [name] = random.choices([*self._known], [weight for weight, _ in self._known.values()])
        return name, {given: random.choice(values) for given, values in self._known[name][1].items()}


step_of = Steps()


class Ground:
    """A database with the shipped policies, and a copy of it for each walk. `counts`: what the walks have met."""

    def __init__(self, postgres: str, template: str, directory: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.loop = asyncio.new_event_loop()
        self._postgres, self._directory = postgres, directory
        self._template, self._url = urlsplit(template).path.strip("/"), service_url(template)
        direct = make_direct(make_settings(self._url, directory))
        self.run(direct.parts.revisions.bootstrap())
        self.run(direct.db.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def fresh(self) -> "Scene":
        name = f"{self._template}_copy"
        for statement in (
            f"drop database if exists {name} with (force)",
            f"create database {name} template {self._template}",
        ):
            run(_execute(self._postgres, statement))
        url = urlsplit(self._url)._replace(path=f"/{name}").geturl()
        return Scene(self, make_direct(make_settings(url, self._directory, settle_seconds=0.0)))

    def close(self) -> None:
        run(_execute(self._postgres, f"drop database if exists {self._template}_copy with (force)"))
        self.loop.close()


class Scene:
    """The use cases on a database of one walk."""

    def __init__(self, ground: Ground, direct: Direct) -> None:
        self._ground, self.direct = ground, direct
        self.since = self.now()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._ground.run(work)

    def now(self) -> datetime:
        """The service's clock is the database's, which is this machine's."""
        return datetime.now(UTC) + self.direct.clock.ahead

    def refused(self, work: Coroutine[Any, Any, Any]) -> str | None:
        """The code of the refusal, None when it was done. `since`: when it was begun."""
        self.since = self.now()
        try:
            self.result = self.run(work)
        except Problem as problem:
            code = problem.code
        except PolicyError:
            code = "policy-invalid"
        else:
            return None
        self._ground.counts[f"refused: {code}"] += 1
        return code

    def ever(self, holds: Callable[[datetime], Any]) -> set[bool]:
        """What holds when the last act was begun and what holds now: it was in between."""
        return {bool(holds(self.since)), bool(holds(self.now()))}

    def request(self, request_id: str) -> Request:
        return self.run(self.direct.request(request_id))

    def person(self, actor: Actor) -> Person:
        principal = Principal(actor.name, actor.groups, "person" if actor.person else "service", 0, actor.method)
        may = self.direct.parts.desk.access.allows(principal, Action.VOTE, "default", "risky")
        return Person(actor.name, actor.groups, actor.person, may, actor.method, actor.auth_at, actor.email)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
