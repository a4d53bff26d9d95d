"""What a request that might be made would meet."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_features import REVIEW, approvals, document, only

from approval.explain import Asked, Explanation, explain

__all__ = ["only"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def explained(direct: Direct) -> Explanation:
    await direct.registry.register("m", 1, accuracy=0.95)
    return await explain(
        direct.parts.desk,
        Asked(workspace="default", model="m", version=1, to="Production", requested_by="ana", reason="test"),
    )


def signs(*methods: str) -> dict[str, Any]:
    return approvals(REVIEW, signature={"methods": list(methods)})


async def test_all_that_the_policies_say_of_people_and_time_is_explained(only: Direct) -> None:
    deny = {"count": 2, "from": ["group:risk"]}
    window = {"tz": "Europe/Berlin", "days": "Mon-Thu", "from": "09:00", "to": "16:00"}
    freeze = {"name": "fair", "tz": "UTC", "from": "2999-05-01", "to": "2999-05-09"}
    await only.publish(
        document(
            **approvals(REVIEW, deny=deny, delegation={"allowed": True, "max": "7d"}, valid_for="2d"),
            escalation=[{"after": "4h", "do": "add_approvers", "rule": "review", "to": ["group:leads"]}],
            schedule={"windows": [window], "freezes": [freeze]},
        )
    )
    told = (await explained(only)).model_dump()
    assert told["deny"] == [{"from": ["group:risk"], "count": 2}]
    assert (told["delegation_max_seconds"], told["valid_for_seconds"]) == (7 * 86_400, 2 * 86_400)
    ((step,),) = (told["escalation"],)
    assert (step["action"], step["to"], step["rule"]) == ("add_approvers", ["group:leads"], "here/review")
    async with only.db.snapshot() as tx:
        assert step["at"] <= (await only.clock(tx) + timedelta(hours=4)).isoformat()
    assert told["windows"] == [{"policy": "here", **window}]
    assert told["freezes"] == [{"policy": "here", **freeze}]


async def test_it_opens_when_the_least_wait_is_over(only: Direct) -> None:
    freeze = {"name": "fair", "tz": "UTC", "from": "2999-05-01", "to": "2999-05-09"}
    await only.publish(document(schedule={"freezes": [freeze], "min_wait": "5h"}, **approvals(REVIEW)))
    async with only.db.snapshot() as tx:
        earliest = await only.clock(tx) + timedelta(hours=5)
    opens_at = (await explained(only)).opens_at
    assert opens_at is not None
    assert earliest <= datetime.fromisoformat(opens_at) < earliest + timedelta(hours=1)


async def test_no_sign_in_for_all_policies_is_not_any_sign_in(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    assert (await explained(only)).methods is None
    await only.publish(document(**signs("webauthn", "otp")))
    assert (await explained(only)).methods == ["otp", "webauthn"]
    await only.publish(document("other", **signs("pwd")))
    assert (await explained(only)).methods == []


async def test_capitals_do_not_matter_as_in_the_registry(only: Direct) -> None:
    better = {"id": "better", "cel": "candidate.metrics.accuracy >= baseline.metrics.accuracy"}
    there = {"id": "there", "cel": 'request.to == "Production" && request.from == "Development"'}
    await only.publish(document(**approvals(REVIEW), gates=[better, there]))
    await only.registry.register("m", 2, accuracy=0.99)
    promoted = await only.registry.request("m", 2)
    await only.registry.changed(promoted)
    await only.registry.register("m", 1, accuracy=0.95)
    might = Asked(workspace="default", model="m", version=1, to="production", requested_by="ana", reason="test")
    found = [await explain(only.parts.desk, might.model_copy(update={"to": to})) for to in ("Production", "production")]
    assert [(gate.gate, gate.result) for gate in found[0].gates] == [("here/better", "fail"), ("here/there", "pass")]
    exact, lower = ((one.policies, one.gates, one.would) for one in found)
    assert exact == lower


async def test_a_reason_that_is_wanted_and_not_given_is_a_mistake(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW), request={"reason": {"required": True, "min_length": 5}}))
    await only.registry.register("m", 1, accuracy=0.95)
    for reason, phase in (("", "decided"), ("abc", "decided"), ("because", "people")):
        about = Asked(workspace="default", model="m", version=1, to="Production", requested_by="ana", reason=reason)
        told = await explain(only.parts.desk, about)
        assert (told.would.phase, bool(told.mistakes)) == (phase, phase == "decided")
