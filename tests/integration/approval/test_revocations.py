"""Orders that nobody uses a version any more, and the keys that they are signed with."""

import time

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_features import only

from approval.keyring import Keyring, published
from contracts.approval import REVOCATION_TYPE, RevocationOrdered
from contracts.keys import not_counting
from kit.ring import read_ring, write_ring
from policy.signature import key_of, taken_apart

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]


async def revoked(direct: Direct, *, by: str = "olga", reason: str = "stolen data") -> RevocationOrdered:
    return await direct.parts.revocations.revoke("default", "m", 1, by=by, reason=reason)


def counts(direct: Direct, ordered: RevocationOrdered) -> bool:
    """By the keys that the registry reads."""
    keys = published(Keyring(direct.settings.decision_key))
    kid = taken_apart(ordered.jws, REVOCATION_TYPE).kid
    return not_counting(key_of(keys, kid), ordered.revocation.revoked_at) is None


async def test_an_order_is_signed_anew_when_its_key_was_revoked(only: Direct) -> None:
    await only.registry.register("m", 1, accuracy=0.95)
    first = await revoked(only)
    assert await revoked(only) == first
    path, at = only.settings.decision_key, time.time()
    ring = read_ring(path, at)
    write_ring(path, ring.revoked([key.kid for key in ring.keys], at, "compromised"), at)
    assert not counts(only, first)
    second = await revoked(only)
    assert counts(only, second)
    assert second.revocation.revocation_id != first.revocation.revocation_id
    assert await revoked(only) == second
    assert (await only.types("default/m")).count("revocation.ordered") == 2


async def test_an_order_stays_the_same_when_its_key_is_rotated(only: Direct) -> None:
    await only.registry.register("m", 1, accuracy=0.95)
    first = await revoked(only)
    path, at = only.settings.decision_key, time.time() + 1
    write_ring(path, read_ring(path, at).rotated(at, at), at)
    assert await revoked(only) == first
