"""Two people at once, at random, over HTTP: what must hold of the registry holds after every step.

HALLMARK_MACHINE_EXAMPLES=100 walks longer than CI does.
"""

import asyncio
import os
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.integration.registry.test_registry import signed
from tests.integration.registry.test_revocation import REGISTRY, ordered
from tests.support.walking import RULES, World, request_of, world

from contracts.approval import RequestDecided, Verdict
from contracts.registry import AliasChanged, StageChanged
from kit.errors import Permanent
from kit.events import Cause
from registry.rebuild import rebuild
from registry.tables import event_log

__all__ = ["world"]
EXAMPLES = int(os.environ.get("HALLMARK_MACHINE_EXAMPLES", "5"))
STEPS = 30

GROUPS = ("ml-engineers", "operators", "admins")
GATED = {"Staging": None, "Production": 1, "Canary": 2}
MODELS = st.sampled_from(["a", "b", "a", "c", "d"])
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
VERSIONS = st.sampled_from([3, 2, 1, 4])
ALIASES = st.sampled_from(["best", "champ"])
STAGES = st.sampled_from(["Staging", "Production", "archived", "Development", "Canary"])
NTH = st.integers(0, 9)
Action = tuple[Any, ...]
ASKS = st.one_of(
    st.tuples(st.just("request"), MODELS, VERSIONS, STAGES),
    st.tuples(st.just("rollback"), MODELS, st.none() | st.just(1)),
    st.tuples(st.just("set-alias"), MODELS, ALIASES, VERSIONS, st.none() | st.integers(0, 4)),
)
ACTIONS = st.one_of(
    ASKS,
    st.tuples(st.just("decide"), NTH, st.booleans()),
    st.tuples(st.just("decide"), NTH, st.just(True)),
    st.tuples(st.just("cancel"), NTH),
    st.tuples(st.just("revoke"), MODELS, VERSIONS, st.none() | VERSIONS),
    st.tuples(st.just("register-model"), MODELS),
    st.tuples(st.just("register-version"), MODELS),
    st.tuples(st.just("remove-alias"), MODELS, ALIASES),
    st.tuples(st.just("rename"), MODELS, NAMES),
    st.tuples(st.sampled_from(["delete", "restore", "update"]), MODELS),
    st.tuples(st.sampled_from(["tag", "note", "evaluate"]), MODELS, VERSIONS),
    st.tuples(st.just("configure"), st.integers(0, len(RULES) - 1)),
)
# Done by one, they cannot be done by another.
ONCE = {"register-model", "rename", "delete", "restore", "remove-alias", "cancel", "decide", "rollback"}


@dataclass(frozen=True)
class Answer:
    """`code` is empty where the wish came true."""

    code: str
    document: dict[str, Any]


class Machine(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.harness = replace(self.world.harness, workspace=f"w{uuid4().hex[:8]}")
        self.clients = [self.harness.client(name, *GROUPS) for name in ("ana", "bob")]
        self.asked: list[dict[str, Any]] = []
        self.decisions: dict[str, RequestDecided] = {}
        self.names: dict[str, str] = {}  # name -> identity of the model that has it for ever
        self.versions: dict[str, int] = {}
        self.ticks = count()

    @initialize(rules=st.integers(0, len(RULES) - 1))
    def begin(self, rules: int) -> None:
        self._all(("configure", 0))
        for _ in range(3):
            self._all(("register-version", "a"), ("register-version", "b"))
        for version, stage in ((1, "Staging"), (1, "Production"), (2, "Staging"), (3, "Staging")):
            self._all(("request", "a", version, stage), ("request", "b", version, stage))
            self._all(("decide", 0, True), ("decide", 1, True))
        self._all(("configure", rules))

    @rule(one=ACTIONS)
    def alone(self, one: Action) -> None:
        self._all(one)

    @rule(one=ACTIONS, other=ACTIONS)
    def together(self, one: Action, other: Action) -> None:
        self._all(one, other)

    @rule(one=ASKS, other=ASKS, meanwhile=st.none() | ACTIONS)
    def asked_and_approved(self, one: Action, other: Action, meanwhile: Action | None) -> None:
        """Random steps alone seldom go the long way into a gated stage."""
        before = len(self.asked)
        self._all(one, other)
        new = len(self.asked) - before
        if new == 2:
            self._all(("decide", 0, True), ("decide", 1, True))
        elif new:
            self._all(("decide", 0, True), *([meanwhile] if meanwhile else []))

    @rule(one=ACTIONS)
    def the_same_twice(self, one: Action) -> None:
        self._one_winner(one, one)

    @rule(alias=ALIASES, model=MODELS, one=VERSIONS, other=VERSIONS, expected=st.integers(0, 4))
    def two_compare_and_set(self, alias: str, model: str, one: int, other: int, expected: int) -> None:
        if expected not in (one, other):
            self._one_winner(*(("set-alias", model, alias, number, expected) for number in (one, other)))

    @rule(one=MODELS, other=MODELS, name=NAMES)
    def two_want_a_name(self, one: str, other: str, name: str) -> None:
        if self.names.get(one, one) != self.names.get(other, other):
            self._one_winner(("rename", one, name), ("rename", other, name))

    def _one_winner(self, *actions: Action) -> None:
        answers = self._all(*actions)
        kind, wins = actions[0][0], [a for a in answers if not a.code]
        # Two may ask for one protected alias: the decisions are signed later, one by one.
        asked = kind == "set-alias" and any("transition_id" in a.document for a in wins)
        gated = actions[0] == actions[1] and any("transition_id" in a.document for a in wins)
        moved = kind == "set-alias" and not asked and actions[0][4] not in (None, actions[0][3])
        if kind in ONCE or gated or moved:
            assert len(wins) <= 1, (actions, answers)
        if not wins and kind != "decide":
            # They did not stand in each other's way: alone, the first fails as well.
            [again] = self._all(actions[0])
            assert again.code == answers[0].code, (actions, answers, again)

    def _all(self, *actions: Action) -> list[Answer]:
        prepared = [self._decision(*a[1:]) if a[0] == "decide" else None for a in actions]
        if len(actions) == 2 and actions[0] == actions[1]:
            prepared = prepared[:1] * 2  # the very same decision

        async def work() -> list[Answer]:
            both = zip(self.clients, actions, prepared, strict=False)
            return await asyncio.gather(*(self._act(client, one, decided) for client, one, decided in both))

        answers = self.world.run(work())
        for action, answer in zip(actions, answers, strict=True):
            if not answer.code:
                self._note(action, answer.document)
        return answers

    def _decision(self, nth: int, approve: bool) -> RequestDecided | None:
        if not self.asked:
            return None
        verdict = Verdict.APPROVED if approve else Verdict.REJECTED
        decided = signed(self.harness, self.asked[-1 - nth % len(self.asked)], verdict=verdict)
        self.decisions[decided.decision.decision_id] = decided
        return decided

    async def _act(self, client: Any, action: Action, decided: RequestDecided | None) -> Answer:
        kind, *given = action
        if kind == "decide":
            return await self._decide(decided)
        if kind == "revoke":
            return await self._revoke(client, *given)
        if kind == "cancel":
            if not self.asked:
                return Answer("nothing-asked", {})
            given = [self.asked[-1 - given[0] % len(self.asked)]["transition_id"]]
        same: dict[str, Any] = {"workspace": self.harness.workspace, "artifact": self.world.artifact}
        response = await client.request(**request_of(kind, given, **same, text=f"{next(self.ticks)}"))
        assert response.status_code < 500, (action, response.text)
        document = response.json()
        if kind == "register-version" and response.status_code == 201:
            path = f"/v1/models/{document['model']}/versions/{document['version']}"
            ready = await client.get(path, params={"wait": 20})
            assert ready.json()["status"] == "ready", ready.text
        if response.is_success:
            return Answer("", document)
        return Answer(document["type"].rsplit(":", 1)[-1], document)

    async def _decide(self, decided: RequestDecided | None) -> Answer:
        if decided is None:
            return Answer("nothing-asked", {})
        try:
            async with self.world.db.transaction() as tx:
                await self.world.commands.decide(tx, decided.decision, decided.jws, Cause(actor="hallmark/approval"))
        except Permanent as error:
            return Answer(error.code, {})
        return Answer("", {})

    async def _revoke(self, client: Any, name: str, number: int, fallback: int | None) -> Answer:
        found = await client.get(f"/v1/models/{name}/versions/{number}")
        if found.status_code != 200:
            return Answer("version-not-found", {})
        message = ordered(self.harness, found.json(), fallback=fallback)
        async with self.world.db.transaction() as tx:
            await self.world.commands.revoke(tx, message.revocation, message.jws, Cause(actor="hallmark/approval"))
        waiting = await client.get(f"/v1/models/{name}/transitions", params={"status": "open"})
        return Answer("", waiting.json())

    def _note(self, action: Action, document: dict[str, Any]) -> None:
        """Keeps what the answer promises."""
        kind = action[0]
        if kind == "revoke":
            self.asked += [item for item in document["items"] if item["requested_by"] == REGISTRY]
        if kind in ("request", "rollback", "set-alias") and "transition_id" in document:
            if document["status"] == "open":
                self.asked.append(document)
        elif kind in ("register-model", "register-version", "rename"):
            model = document["model"]
            name = action[2] if kind == "rename" else action[1]
            assert self.names.setdefault(name, model) == model, "a name changed hands"
            self.names.setdefault(model, model)
            if kind == "register-version":
                self.versions[model] = self.versions.get(model, 0) + 1

    @invariant()
    def what_must_hold(self) -> None:
        self.world.run(self._check())

    async def _check(self) -> None:
        given = {"w": self.harness.workspace, "like": f"{self.harness.workspace}/%"}
        async with self.world.db.snapshot() as tx:

            async def rows(query: str) -> list[Any]:
                return list((await tx.execute(sa.text(query), given)).all())

            numbers = await rows(
                "select model, array_agg(version order by version) as n, array_agg(stage) as s"
                " from registry.version where workspace = :w group by model"
            )
            names = await rows("select name, model from registry.name where workspace = :w")
            lost = await rows(
                "select a.* from registry.alias a left join registry.version v using (workspace, model, version)"
                " where workspace = :w and v.version is null"
            )
            gaps = await rows(
                "select stream from registry.event where stream like :like or stream = 'workspace:' || :w"
                " group by stream having max(sequence) <> count(*) or min(sequence) <> 1"
            )
            changes = await rows(
                "select type, data from registry.event where stream like :like"
                f" and type in ('{StageChanged.TYPE}', '{AliasChanged.TYPE}')"
            )
            homeless = await rows(
                "select v.model, v.version, v.stage from registry.version v join registry.workspace w using (workspace)"
                " where workspace = :w and not w.lifecycle->'stages' @> jsonb_build_array("
                "jsonb_build_object('name', v.stage))"
            )
            double = await rows(
                "select 1 from registry.transition where workspace = :w and status = 'open'"
                " group by model, version, to_stage having count(*) > 1"
            )
            relied_on = await rows(
                "select v.model, v.version, v.stage from registry.version v where workspace = :w"
                " and status = 'revoked' and stage in ('Staging', 'Production')"
                " and not exists (select 1 from registry.transition t where t.workspace = v.workspace"
                " and t.model = v.model and t.to_stage = v.stage and t.status = 'open' and t.kind = 'rollback')"
            )
            waiting = await rows(
                "select t.* from registry.transition t join registry.version v using (workspace, model, version)"
                " where workspace = :w and t.status = 'open' and v.status = 'revoked'"
            )
        assert (relied_on, waiting) == ([], [])
        assert {row.model: row.n for row in numbers} == {m: [*range(1, n + 1)] for m, n in self.versions.items()}
        for row in numbers:
            for stage, holds in GATED.items():
                assert holds is None or row.s.count(stage) <= holds, (row.model, stage)
        assert {row.name: row.model for row in names} == self.names
        assert (lost, gaps, double, homeless) == ([], [], [], [])
        self._check_decided(changes)

    def _check_decided(self, changes: list[Any]) -> None:
        """Law 5: every gated stage was entered by a decision of ours, for exactly that, used once."""
        used: list[str] = []
        for row in changes:
            if row.type == AliasChanged.TYPE:
                moved = AliasChanged.model_validate_json(row.data)
                if moved.decision_id is not None:
                    used.append(moved.decision_id)
                continue
            changed = StageChanged.model_validate_json(row.data)
            if changed.to_stage not in GATED:
                continue
            assert changed.decision_id is not None, changed
            decision = self.decisions[changed.decision_id].decision
            assert (decision.transition_id, decision.version, decision.to_stage, decision.verdict) == (
                *(changed.transition_id, changed.version, changed.to_stage),
                Verdict.APPROVED,
            )
            used.append(changed.decision_id)
        assert len(used) == len(set(used)), "a decision counted twice"

    def teardown(self) -> None:
        """Law 2, while people go on writing."""

        async def work() -> Any:
            writes = [("register-version", "a"), ("note", "a", 1), ("tag", "a", 2), ("register-version", "b")]
            writing = [self._act(client, one, None) for client, one in zip(self.clients * 2, writes, strict=True)]
            found, *answers = await asyncio.gather(rebuild(self.world.db, event_log(), lambda _: None), *writing)
            return found, answers

        found, _ = self.world.run(work())
        assert found.differing == ()


@pytest.mark.timeout(900)
def test_two_people_at_once(world: World) -> None:
    walk = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        # Races seldom come again: shrinking would take long and find little.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    machine = type("Walk", (Machine,), {"world": world})
    run_state_machine_as_test(machine, settings=walk)
