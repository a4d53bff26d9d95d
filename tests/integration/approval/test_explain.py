"""What a request that might be made would meet."""

from datetime import timedelta
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


async def test_no_sign_in_for_all_policies_is_not_any_sign_in(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    assert (await explained(only)).methods is None
    await only.publish(document(**signs("webauthn", "otp")))
    assert (await explained(only)).methods == ["otp", "webauthn"]
    await only.publish(document("other", **signs("pwd")))
    assert (await explained(only)).methods == []
