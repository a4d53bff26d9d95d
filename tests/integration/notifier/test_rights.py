"""What is sent is what the owner may read at that moment: groups and grants are looked at again at each try."""

import json
from datetime import timedelta

import pytest
from tests.support.receiver import Receiver

from contracts.access import Role
from contracts.approval import MembershipChanged, PolicyPublished, PolicyRef
from contracts.envelope import Envelope, now
from contracts.notifier import DeliveryDead, Grouped
from kit.auth import Access, Grant, Principal
from kit.problems import Problem
from notifier import standings, views
from notifier.rights import Rights

from .asking import As, code, made_by
from .conftest import DIGEST, Rig

GRANTS = (
    Grant(group="ml-engineers", role=Role.CONTRIBUTOR),
    Grant(group="fraud-team", role=Role.VIEWER, model="fraud-*"),
    Grant(group="admins", role=Role.ADMIN),
)


async def token(rig: Rig, *groups: str, minutes: float = 0, owner: str = "ana") -> None:
    """A token of the owner's was seen, issued so many minutes from an hour ago."""
    issued = int((now() - timedelta(hours=1) + timedelta(minutes=minutes)).timestamp())
    await standings.seen(rig.db, rig.log, Principal(owner, frozenset(groups), "person", issued, "token"))


def looked_up(rig: Rig) -> Rights:
    """With nothing kept from before."""
    rig.rights = Rights(rig.db, Access(GRANTS))
    return rig.rights


def directory(*groups: str, sequence: int = 1) -> Envelope:
    told = MembershipChanged(subject="ana", groups=groups, person=True, by="the directory")
    return Envelope.of(
        told, source="hallmark/approval", subject="member:ana", key="member:ana", sequence=sequence, actor="root"
    )


async def test_who_lost_the_right_to_read_gets_nothing_any_more(rig: Rig, receiver: Receiver) -> None:
    await token(rig, "ml-engineers")
    looked_up(rig)
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("churn", 2))
    async with rig.worker():
        await rig.all_done(made, 1)
    assert len(receiver.hits) == 1

    # What waits already is not sent either.
    await rig.happens(rig.event("churn", 3), rig.event("fraud-a", 1), directory("fraud-team"))
    looked_up(rig)
    async with rig.worker():
        done = await rig.all_done(made, 3)
    assert [(d["subject"], d["status"]) for d in done][1:] == [
        ("default/churn/3", "denied"),
        ("default/fraud-a/1", "denied"),
    ]
    assert len(receiver.hits) == 1
    [tried] = await rig.tries(done[1])
    assert (tried["outcome"], tried["detail"]) == ("denied", "ana may not read default/churn any more")
    [said] = [e for e in await rig.events(made) if e.type == "hallmark.delivery.denied.v1" and "churn" in e.subject]
    assert json.loads(said.value)["detail"] == "ana may not read default/churn any more"
    assert (await rig.deliveries(made))[-1]["status"] == "denied"

    # A newer token, of another group: what it may read is sent, what was kept back can be replayed.
    await token(rig, "fraud-team", minutes=61)
    looked_up(rig)
    await rig.replayed(done[2])
    await rig.replayed(done[1])
    async with rig.worker():
        done = await rig.all_done(made, 3)
    assert [d["status"] for d in done] == ["succeeded", "denied", "succeeded"]
    assert len(receiver.hits) == 2


async def test_a_grant_that_ended_and_an_unknown_owner_give_nothing(rig: Rig, receiver: Receiver) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    looked_up(rig)
    await rig.happens(rig.event("churn", 2))
    async with rig.worker():
        [unknown] = await rig.all_done(made, 1)
        assert "no token of theirs was seen yet" in (await rig.tries(unknown))[0]["detail"]
    await token(rig, "ml-engineers")
    rig.rights = Rights(rig.db, Access([GRANTS[0].model_copy(update={"until": now() - timedelta(seconds=1)})]))
    await rig.replayed(unknown)
    async with rig.worker():
        [ended] = await rig.all_done(made, 1)
    assert (unknown["status"], ended["status"], receiver.hits) == ("denied", "denied", [])


async def test_a_message_about_many_has_only_what_its_reader_may_read(rig: Rig, receiver: Receiver) -> None:
    await token(rig, "fraud-team")
    looked_up(rig)
    made = await rig.webhook(f"{receiver.url}/hook", bundling=Grouped(by=()))
    await rig.happens(rig.event("churn", 2), rig.event("fraud-a", 1))
    assert await rig.bundled(later=timedelta(minutes=1)) == 1
    async with rig.worker():
        await rig.all_done(made, 3)
    [hit] = receiver.hits
    told = json.loads(hit.body)["data"]
    assert (told["count"], [one["subject"] for one in told["newest"]]) == (1, ["default/fraud-a/1"])
    by_subject = {d["subject"]: (d["status"], d["held_by"]) for d in await rig.deliveries(made)}
    assert by_subject["default/churn/2"] == ("denied", "ana may not read default/churn any more")
    assert by_subject["default/fraud-a/1"][0] == "succeeded"

    # A message that was made before the right was lost.
    await rig.happens(rig.event("fraud-a", 2))
    await rig.bundled(later=timedelta(minutes=10))
    await rig.happens(directory())
    looked_up(rig)
    async with rig.worker():
        await rig.all_done(made, 5)
    assert len(receiver.hits) == 1
    assert {d["status"] for d in (await rig.deliveries(made))[-2:]} == {"denied"}


async def test_news_of_deliveries_are_for_who_manages_the_models(rig: Rig, receiver: Receiver) -> None:
    policy = PolicyPublished(
        policy=PolicyRef(name="p", revision=1, digest=DIGEST), document="x", published_by="root", approved_by=()
    )
    told = Envelope.of(policy, source="hallmark/approval", subject="policy:p", key="policy:p", sequence=1)
    of = await rig.webhook(f"{receiver.url}/hook", types=("hallmark.policy.*", "hallmark.delivery.dead.*"))
    async with rig.db.snapshot() as tx:
        state = await views.subscription(tx, of["subscription_id"])
    assert state is not None
    died = DeliveryDead(
        delivery_id="d", subscription_id="s", event_id="e", event_type="t", attempt=1, latency_ms=0, detail="HTTP 500"
    )
    dead = Envelope.of(died, source="hallmark/notifier", subject="default/churn/2", key="subscription:s", sequence=2)

    async def refusals() -> list[str | None]:
        rights = looked_up(rig)
        return [await rights.refusal(state, told), await rights.refusal(state, dead)]

    await token(rig, "ml-engineers", minutes=1)
    assert await refusals() == [None, "ana may not manage default/churn any more"]
    await token(rig, "admins", minutes=2)
    assert await refusals() == [None, None]
    await rig.happens(directory())
    assert await refusals() == ["ana may not read default/* any more", "ana may not manage default/churn any more"]


async def test_a_token_that_is_old_tells_nothing_and_the_view_is_a_fold(rig: Rig) -> None:
    await token(rig, "admins", minutes=5)
    await token(rig, "ml-engineers", minutes=1)
    await token(rig, "admins", minutes=6)  # nothing new: no event
    await rig.happens(directory("admins", "others"))
    async with rig.db.transaction() as tx:
        before = await standings.known(tx, "ana")
        assert await views.rebuild(tx, rig.log) == 1
        assert await standings.known(tx, "ana") == before
    assert before.groups == {"admins"}
    with pytest.raises(Problem) as refused:
        await token(rig, *(f"g{n}" for n in range(501)), minutes=9)
    assert refused.value.code == "too-many-groups"


async def test_what_was_sent_is_not_shown_to_who_may_not_read_it_any_more(rig: Rig, person: As) -> None:
    made = await made_by(person("ana", "ml-engineers"), channel="webhook", address="http://127.0.0.1:9/hook")
    await rig.happens(rig.event("churn", 2))
    [delivery] = await rig.deliveries(made)
    path = f"/v1/deliveries/{delivery['delivery_id']}"
    for client, status in ((person("ana", "ml-engineers"), 200), (person("ana", "fraud-team"), 404)):
        for of in (path, f"{path}/event"):
            assert (await client.get(of)).status_code == status, of
    assert code(await person("ana", "fraud-team").post(f"{path}/replay")) == "no-such-delivery"
    # Whoever changes a subscription shows a token: it counts from then on.
    async with rig.db.snapshot() as tx:
        assert (await standings.known(tx, "ana")).groups == {"fraud-team"}
