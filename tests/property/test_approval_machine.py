"""Whoever does what, and when: no request is ever decided as the text of the policies forbids.

Each vote, waiver, emergency and decision of the real use cases, on a real database, is compared with a second, naive
reading of the policies (`tests.support.approval_oracle`). HALLMARK_MACHINE_EXAMPLES=300 walks longer than CI.
"""

import os
from collections.abc import Iterator
from hashlib import sha256
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from tests.support.approval_events import Events
from tests.support.approval_policies import RETIRED, Writer
from tests.support.approval_walk import Ground, step_of
from tests.support.databases import migrated_database

EXAMPLES = int(os.environ.get("HALLMARK_MACHINE_EXAMPLES", "6"))
STEPS = 40
SEEDS = st.integers(0, 2**63)


class Machine(Events):
    """Its steps, with what is random in them, are those of `Acts` and `Events`."""

    mixed = ""

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        self._mix(seed)
        random = self.random
        if random.randrange(6):
            self.publish("production", RETIRED)
        self.publish("one", Writer(random, gentle=True).spec(wide=True))
        if random.randrange(2):
            self.publish("two", Writer(random, gentle=bool(random.randrange(3))).spec(wide=False))
        self.register()

    @rule(seed=SEEDS)
    def step(self, seed: int) -> None:
        self._mix(seed)
        name, given = step_of.draw(self.random, None if self.nth(0) or self.random.randrange(4) == 0 else "ask")
        note(f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})")
        self.counts[f"step: {name}"] += 1
        getattr(self, name)(**given)

    def _mix(self, seed: int) -> None:
        """Draws from all seeds until now: Hypothesis gives the same small ones again and again, and walks are few."""
        self.mixed = sha256(f"{self.mixed}/{seed}".encode()).hexdigest()
        self.random = Random(self.mixed)


@pytest.fixture(scope="module")
def ground(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with migrated_database(infra_postgres, "approval") as template:
        ground = Ground(infra_postgres, template, tmp_path_factory.mktemp("machine"))
        yield ground
        ground.close()


@pytest.mark.timeout(7200)
def test_no_decision_that_the_policies_forbid(ground: Ground) -> None:
    walk = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        # A walk takes seconds: it is told from its steps, without looking for a shorter one.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    run_state_machine_as_test(type("Walk", (Machine,), {"ground": ground}), settings=walk)
    print(dict(sorted(ground.counts.items())))
