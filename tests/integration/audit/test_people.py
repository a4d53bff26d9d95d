"""Events about people and policies: told to auditors of everything, and to nobody else."""

from datetime import timedelta

import pytest

from contracts.approval import (
    Choice,
    DelegationEnded,
    DelegationGranted,
    MembershipChanged,
    PolicyProposed,
    PolicyRef,
    Vote,
    VoteCast,
)
from contracts.payload import Message
from contracts.topics import APPROVAL_EVENTS
from kit.bus import Record

from .conftest import NOON, Harness, digest, event, record

PROPOSED = PolicyProposed(
    request_id="q1",
    policy=PolicyRef(name="prod", revision=2, digest=digest(0)),
    document="kind: PromotionPolicy",
    requested_by="root",
    reason="stricter",
    policies=(),
    inputs={"request": {"kind": "policy"}},
    inputs_digest=digest(0),
    request_digest=digest(0),
    expires_at=NOON,
)
VOTE = Vote(
    voter="ada",
    choice=Choice.APPROVE,
    rule="policy-changes/agree",
    meaning="I agree",
    at=NOON,
    auth_method="token",
    request_digest=digest(0),
)
GRANTED = DelegationGranted(
    delegation_id="g1", delegator="cy/risk", delegate="dan", starts=NOON, ends=NOON + timedelta(days=3)
)
# Streams and subjects with and without a slash in them.
TOLD: list[tuple[Message, str, str]] = [
    (MembershipChanged(subject="ben", groups=("risk",), person=True, by="sync"), "member:ben", "ben is in the groups"),
    (MembershipChanged(subject="team/ana", groups=(), person=False, by="s"), "member:team/ana", "is in no group"),
    (GRANTED, "delegation:cy/risk", "dan may vote for cy/risk"),
    (
        DelegationEnded(delegation_id="g1", delegator="cy/risk", delegate="dan", ended_by="cy/risk"),
        "delegation:cy/risk",
        "ended",
    ),
    (PROPOSED, "policy:prod", "root asked for revision 2 of the policy prod"),
    (VoteCast(request_id="q1", vote=VOTE), "policy:prod", "ada voted to approve"),
]


def said(message: Message, stream: str, sequence: int, subject: str | None = None) -> Record:
    envelope = event(message, sequence, key=stream, subject=subject or stream, source="hallmark/approval")
    return record(envelope, topic=APPROVAL_EVENTS.name)


async def test_auditors_of_everything_read_them_and_nobody_else_does(audit: Harness) -> None:
    records = [said(message, stream, n) for n, (message, stream, _) in enumerate(TOLD, 1)]
    assert [outcome.flaw for outcome in await audit.ledger.append(records)] == [None] * len(TOLD)
    page = await audit.get("/v1/timeline?workspace=*", "auditors")
    assert len(page["items"]) == len(TOLD)
    for item, (_, stream, text) in zip(page["items"], TOLD, strict=True):
        assert text in item["summary"]
        assert (item["stream"], item["workspace"], item["model"], item["version"]) == (stream, None, None, None)
    for groups in ("ml-engineers", "local-auditors", "auditors"):
        assert (await audit.get("/v1/timeline", groups))["items"] == []
    for groups in ("ml-engineers", "local-auditors"):
        assert await audit.status("/v1/timeline?workspace=*", groups) == 403


@pytest.mark.parametrize(("message", "stream", "_"), TOLD[:5], ids=lambda given: str(given)[:40])
async def test_a_subject_that_names_a_model_does_not_show_them_to_its_readers(
    audit: Harness, message: Message, stream: str, _: str
) -> None:
    await audit.ledger.append([said(message, stream, 1, subject="default/fraud/1")])
    assert (await audit.get("/v1/timeline?model=fraud", "ml-engineers"))["items"] == []
