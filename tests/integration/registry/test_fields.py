"""What a request carries for the policies beside its reason."""

from typing import Any

import pytest

from contracts.registry import RequestTransition, RollBack, SetAlias, StageRequested

from .conftest import Harness
from .test_catalogue import code_of, put
from .test_lifecycle_changes import in_production

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
FIELDS = {"change_ticket": "CHG0000042", "rollback_to": "1"}
PATH = "/v1/models/fraud/versions/1/transitions"


async def requested(harness: Harness, transition_id: str) -> StageRequested:
    event = await harness.event(
        lambda e: e.type == StageRequested.TYPE and e.payload(StageRequested).transition_id == transition_id
    )
    return event.payload(StageRequested)


async def test_fields_of_a_request_are_in_its_event_and_its_document(registry: Harness) -> None:
    await registry.register("fraud")
    asked = await registry.ana.post(PATH, json={"to_stage": "Staging", "reason": "x", "fields": FIELDS})
    assert (asked.status_code, asked.json()["fields"]) == (202, FIELDS)
    transition = asked.json()["transition_id"]
    assert (await requested(registry, transition)).fields == FIELDS
    assert (await registry.ana.get(f"/v1/transitions/{transition}")).json()["fields"] == FIELDS
    listed = await registry.ana.get("/v1/models/fraud/transitions")
    assert [item["fields"] for item in listed.json()["items"]] == [FIELDS]


async def test_a_rollback_and_a_protected_alias_carry_fields_too(registry: Harness) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", {"protected_aliases": ["champion"]}, by="ada")
    await in_production(registry, 1, 2)
    back = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "x", "fields": FIELDS})
    alias = await registry.ana.put("/v1/models/fraud/aliases/champion", json={"version": 2, "fields": FIELDS})
    for asked in (back, alias):
        assert (asked.status_code, asked.json()["fields"]) == (202, FIELDS), asked.text
        assert (await requested(registry, asked.json()["transition_id"])).fields == FIELDS
    # Nobody is asked about another alias, nor about an open stage.
    await put(registry, "/v1/models/fraud/aliases/mine", {"version": 2, "fields": FIELDS})


async def test_commands_over_kafka_carry_fields(registry: Harness) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", {"protected_aliases": ["champion"]}, by="ada")
    await in_production(registry, 1, 2)
    await registry.register("fraud", b"model 3")
    token = registry.token("trainer", "ml-engineers", "operators")
    where: dict[str, Any] = {"workspace": registry.workspace, "model": "fraud", "reason": "x", "fields": FIELDS}
    for command in (
        RequestTransition(**where, version=3, to_stage="Staging"),
        RollBack(**where),
        SetAlias(**where, version=2, alias="champion"),
    ):
        sent = await registry.command(command, token)
        event = await registry.event(lambda e, sent=sent: e.causationid == sent.id)  # type: ignore[misc]
        assert event.payload(StageRequested).fields == FIELDS


async def test_an_idempotency_key_does_not_do_for_other_fields(registry: Harness) -> None:
    await registry.register("fraud")
    body = {"to_stage": "Staging", "reason": "x", "fields": FIELDS}
    key = {"idempotency-key": "k"}
    first, again = [await registry.ana.post(PATH, json=body, headers=key) for _ in range(2)]
    assert first.json()["transition_id"] == again.json()["transition_id"]
    other = await registry.ana.post(PATH, json={**body, "fields": {"change_ticket": "CHG9"}}, headers=key)
    assert (other.status_code, code_of(other)) == (409, "idempotency-key-reused")


@pytest.mark.parametrize(
    "fields",
    [{"a": 1}, {"": "x"}, {"a": "x" * 1_001}, {"a": "nul\x00"}, {f"f{n}": "x" for n in range(51)}, ["a"], "a"],
    ids=["number", "no-name", "long", "nul", "many", "list", "text"],
)
async def test_fields_that_are_none_are_refused(registry: Harness, fields: Any) -> None:
    await registry.register("fraud")
    answer = await registry.ana.post(PATH, json={"to_stage": "Staging", "reason": "x", "fields": fields})
    assert (answer.status_code, code_of(answer)) == (422, "invalid-request")
    assert (await registry.ana.get("/v1/models/fraud/transitions")).json()["items"] == []
