"""Who may read what, where names and patterns could say more than was granted."""

from typing import Any

from contracts.approval import VoteCast
from contracts.lifecycle import Stage
from contracts.payload import Message
from contracts.registry import ModelRenamed

from .conftest import Harness, changed, event, record, registered
from .test_explain import names, told
from .test_reports import said, vote


async def tell(audit: Harness, *messages: Message, workspace: str = "default", start: int = 1) -> None:
    for n, message in enumerate(messages, start):
        key = f"{workspace}/{message.model}"  # type: ignore[attr-defined]
        of = message.model_copy(update={"workspace": workspace})
        await audit.ledger.append([record(event(of, n, key=key, subject=key))])


def renamed(model: str, former: str, name: str) -> ModelRenamed:
    return ModelRenamed(workspace="default", model=model, former=former, name=name)


async def found(audit: Harness, query: str, group: str) -> list[Any]:
    return [
        (i["workspace"], i["model"]) for i in (await audit.get(f"/v1/timeline?workspace=*&{query}", group))["items"]
    ]


async def test_an_auditor_of_one_model_reads_that_model_whoever_takes_its_name(audit: Harness) -> None:
    """Elsewhere a secret model is renamed to the name that the auditor has the right to."""
    await tell(audit, registered(1), renamed("fraud", "fraud", "scam"))
    await tell(audit, registered(1, "secret"), renamed("secret", "secret", "fraud"), workspace="other")
    assert set(await found(audit, "model=fraud", "fraud-auditors")) == {("default", "fraud")}
    assert set(await found(audit, "model=scam", "fraud-auditors")) == {("default", "fraud")}
    assert set(await found(audit, "model=fraud", "auditors")) == {("default", "fraud"), ("other", "secret")}
    for path in ("/v1/timeline?workspace=*", "/v1/timeline?workspace=*&model=secret", "/v1/reports/gaps"):
        assert await audit.status(path, "fraud-auditors") == 403


async def test_a_refusal_does_not_tell_what_a_name_leads_to(audit: Harness) -> None:
    await tell(audit, registered(1, "project-x"), renamed("project-x", "project-x", "harmless"))
    for path in (
        "/v1/explain?model=harmless",
        "/v1/models/harmless/production",
        "/v1/timeline?model=harmless",
        "/v1/timeline?workspace=*&model=harmless",
    ):
        async with audit.client("eve", "strangers") as client:
            response = await client.get(path)
        assert response.status_code == 403
        assert "harmless" in response.text
        assert "project-x" not in response.text


async def test_readers_of_a_model_learn_nothing_of_policies_and_of_other_models(audit: Harness) -> None:
    await told(audit)
    foreign = VoteCast(request_id=changed(1, Stage.DEVELOPMENT, Stage.PRODUCTION).transition_id, vote=vote("eve"))
    await audit.ledger.append([said(foreign, 1, subject="other/secret/1", key="other/secret")])
    query = "/v1/explain?model=fraud&at=2026-11-20T17:00:00Z&proofs=false"
    reader, auditor = await audit.get(query, "ml-engineers"), await audit.get(query, "auditors")
    assert (reader["policies"], reader["policies_withheld"]) == ([], 1)
    assert ([p["index"] for p in auditor["policies"]], auditor["policies_withheld"]) == ([0], 0)
    assert names(reader)["votes"] == names(auditor)["votes"] == [8]
    # The decision is not signed here, so that it confirms the vote only as far as the service believes it.
    assert reader["votes"][0]["signed_index"] == 9
