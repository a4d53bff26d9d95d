"""Which policies apply, where that hangs on what was attested of a version."""

from collections.abc import Iterator

import pytest
from tests.integration.approval.checks import Rig, make_rig
from tests.integration.approval.conftest import Direct
from tests.integration.approval.exhibits import attach, file_of, stored, upload
from tests.integration.approval.test_features import REVIEW, approvals, asked, document, only, vote
from tests.integration.approval.test_records import true

from embedded.fixtures import S3

__all__ = ["only"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ATTESTED = "candidate.attestations.exists(a, a.type == 'slsa' && a.verified)"
PRODUCTION = {"transition": {"to": "Production"}, "models": ["m"]}
REPORT = b'{"predicateType": "https://slsa.dev/provenance/v1"}'
WORD = {"type": "slsa", "title": "provenance", "result": "pass"}


@pytest.fixture(scope="module")
def store(infra_s3: S3) -> Iterator[dict[str, str]]:
    with stored(infra_s3) as options:
        yield options


@pytest.fixture
def rig(only: Direct, store: dict[str, str]) -> Rig:
    return make_rig(only, **store)


async def test_the_requesters_own_word_makes_no_policy_apply(rig: Rig) -> None:
    await rig.direct.publish(document("attested", match={**PRODUCTION, "when": ATTESTED}))
    assert (await rig.direct.request(await asked(rig.direct))).status == "rejected"
    assert (await attach(rig.ana, **WORD)).status_code == 201
    found = await true(rig.direct, await asked(rig.direct))
    assert (found.status, found.policies) == ("rejected", ())
    assert found.decision is not None
    assert found.decision.reason == "no policy allows a promotion from Staging to Production"


async def test_a_policy_for_what_is_not_attested_is_not_about_what_is(rig: Rig) -> None:
    twice = approvals({**REVIEW, "count": 2})
    await rig.direct.publish(document("attested", match={**PRODUCTION, "when": ATTESTED}, **approvals(REVIEW)))
    await rig.direct.publish(document("unattested", match={**PRODUCTION, "when": f"!{ATTESTED}"}, **twice))
    request_id = await asked(rig.direct)
    assert (await attach(rig.ana, **WORD)).status_code == 201
    before = await vote(rig.direct, request_id, "ben", "reviewers")
    assert (before.status, [ref.name for ref in before.policies]) == ("open", ["unattested"])
    await upload(rig.ci, REPORT)
    assert (await attach(rig.ci, **WORD, **file_of(REPORT))).status_code == 201
    await vote(rig.direct, request_id, "ben", "reviewers")
    found = await true(rig.direct, request_id)
    assert (found.status, [ref.name for ref in found.policies]) == ("approved", ["attested"])
