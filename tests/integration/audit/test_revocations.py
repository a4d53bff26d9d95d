"""Versions that were revoked: what was there stays told, with since when nobody may use it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from joserfc.jwk import OKPKey
from tests.support.decisions import revocation

from approval.decision import sign
from audit.domain import NOT_VERIFIED
from contracts.approval import RevocationOrdered
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, VersionRevoked
from contracts.topics import APPROVAL_EVENTS

from .conftest import Harness, changed, digest, event, hours, record, registered
from .signed import ARCHIVED, PRODUCTION, Signed, decided

ORDER: dict[str, Any] = {
    "workspace": "default",
    "model": "fraud",
    "version": 2,
    "digest": digest(2),
    "revoked_by": "rita",
    "reason": "poisoned",
    "fallback": 1,
}


def revoked(key: OKPKey, **other: Any) -> VersionRevoked:
    """The event with an order for it; `other` is what the order says instead."""
    order = revocation(**{**ORDER, "artifact_digest": ORDER["digest"], "revoked_at": hours(6), **other})
    return VersionRevoked(**ORDER, revocation=sign(order, key))


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


def story(signed: Signed) -> list[Envelope]:
    """v1, then v2 in production, which is revoked at 6 h; v1 takes over at 7 h."""
    back = decided(changed(1, ARCHIVED, PRODUCTION, TransitionKind.ROLLBACK, replaces=2), signed.key)
    leaving = changed(2, PRODUCTION, ARCHIVED, TransitionKind.SUPERSEDED, superseded_by=1)
    same = {"transition_id": back.transition_id, "decision_id": back.decision_id}
    pointed = AliasChanged(
        **{name: ORDER[name] for name in ("workspace", "model", "version", "digest")},
        alias="champion",
        artifact_digest=digest(2),
        requested_by="ana",
        reason="won",
    )
    return [
        *signed.first(),
        *signed.swap(),
        event(pointed, 8, at=hours(5.5)),
        event(revoked(signed.key), 9, at=hours(6)),
        event(leaving.model_copy(update=same), 10, at=hours(7)),
        event(back, 11, at=hours(7)),
    ]


async def production(audit: Harness, at: float) -> Any:
    return await audit.get(f"/v1/models/fraud/production?at={quote(hours(at).isoformat())}")


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_there_stays_told_and_says_that_it_was_revoked(signed: Signed, seed: int) -> None:
    told = story(signed)
    random.Random(seed).shuffle(told)
    for envelope in told:
        assert await signed.tell(envelope) == [None]
    before, during, after = [await production(signed.audit, at) for at in (3, 5.2, 8)]
    assert [answer["version"] for answer in (before, during, after)] == [1, 2, 1]
    assert (before["revoked"], after["revoked"]) == (None, None)
    index = next(n for n, envelope in enumerate(told) if envelope.type == VersionRevoked.TYPE)
    said = {"at": "2026-11-20T18:00:00Z", "by": "rita", "reason": "poisoned", "fallback": 1, "index": index}
    assert during["revoked"] == during["occupants"][0]["revoked"] == said
    assert (during["since"], during["until"]) == ("2026-11-20T17:00:00Z", "2026-11-20T19:00:00Z")
    assert (await signed.audit.get("/v1/models/fraud/aliases/champion"))["revoked"] == said
    nothing = await signed.audit.get("/v1/models/other/production")
    assert (nothing["version"], nothing["revoked"]) == (None, None)
    await signed.assert_rebuilt_alike()


async def test_the_timeline_tells_of_it(signed: Signed) -> None:
    await signed.tell(*story(signed))
    page = await signed.audit.get(f"/v1/timeline?model=fraud&type={VersionRevoked.TYPE}")
    [item] = page["items"]
    assert item["summary"].startswith("rita revoked fraud v2, which nobody may use any more: poisoned")
    assert (item["version"], item["problem"]) == (2, None)


FORGED: dict[str, Callable[[OKPKey], VersionRevoked]] = {
    "not signed": lambda key: VersionRevoked(**ORDER, revocation="a.b.c"),
    "another key": lambda key: revoked(OKPKey.generate_key("Ed25519", {"kid": "strange"})),
    "another key of that name": lambda key: revoked(OKPKey.generate_key("Ed25519", {"kid": str(key.kid)})),
    "of another version": lambda key: revoked(key, version=1),
    "of another model": lambda key: revoked(key, model="churn"),
    "of another workspace": lambda key: revoked(key, workspace="other"),
    "of other bytes": lambda key: revoked(key, digest=digest(9)),
    "by somebody else": lambda key: revoked(key, revoked_by="eve"),
    "with another reason": lambda key: revoked(key, reason="a mistake"),
    "with another fallback": lambda key: revoked(key, fallback=None),
}


@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_revocation_is_logged_and_believed_by_nobody(signed: Signed, how: str) -> None:
    told = story(signed)
    forged = event(FORGED[how](signed.key), 9, at=hours(5.8))
    assert await signed.tell(*told[:8], forged) == [*[None] * 8, NOT_VERIFIED]
    assert (await production(signed.audit, 5.9))["revoked"] is None
    [item] = (await signed.audit.get(f"/v1/timeline?type={VersionRevoked.TYPE}"))["items"]
    assert item["problem"].startswith(f"{NOT_VERIFIED}: ")
    # It neither takes the place of the true one nor holds up what follows.
    assert await signed.tell(*told[8:]) == [None] * 3
    assert (await production(signed.audit, 5.9))["revoked"]["at"] == "2026-11-20T18:00:00Z"
    assert await signed.production() == 1
    await signed.assert_rebuilt_alike()


async def test_an_order_that_nobody_signed_is_no_ground(signed: Signed) -> None:
    order = revocation(**ORDER, artifact_digest=digest(2), revoked_at=hours(6))
    orders = [RevocationOrdered(revocation=order, jws=jws) for jws in ("a.b.c", sign(order, signed.key))]
    given: dict[str, Any] = {"key": "default/fraud", "subject": "default/fraud/2", "source": "hallmark/approval"}
    told = [record(event(message, n, **given), topic=APPROVAL_EVENTS.name) for n, message in enumerate(orders, 1)]
    await signed.ledger.append([*told, record(event(revoked(signed.key), 1))])
    [item] = (await signed.audit.get("/v1/reports/revocations"))["items"]
    assert (item["index"], item["ordered_index"]) == (2, 1)


async def test_the_first_word_counts_whoever_repeats_it(signed: Signed) -> None:
    await signed.tell(*story(signed))
    again = event(revoked(signed.key), 12, at=hours(1))
    assert await signed.tell(again) == [None]
    assert (await production(signed.audit, 5.9))["revoked"]["at"] == "2026-11-20T18:00:00Z"
    await signed.assert_rebuilt_alike()


async def test_an_order_of_a_revoked_key_is_not_believed(signed: Signed) -> None:
    signed.publish({"revoked": {"revoked_at": 1, "reason": "stolen"}})
    assert await signed.tell(event(revoked(signed.key), 1)) == [NOT_VERIFIED]
    [item] = (await signed.audit.get("/v1/timeline"))["items"]
    assert "the revocation was refused: it is signed by the key" in item["problem"]
    assert "what was logged before that stays believed" in item["problem"]


async def test_without_keys_a_revocation_is_believed(audit: Harness) -> None:
    """As stage changes are: the operator did not say whose signatures count."""
    told = [event(registered(2, stage="Production"), 1), event(VersionRevoked(**ORDER, revocation="a.b.c"), 2)]
    await audit.ledger.append([record(envelope) for envelope in told])
    assert (await audit.get("/v1/models/fraud/production"))["revoked"]["by"] == "rita"
