"""What the registry believes: a decision or a revocation that a key signed which counts. Everything else is parked."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.decisions import AT, BENT, decision, new_key, publish, revocation

from approval.decision import sign
from contracts.approval import Decision, Revocation
from contracts.keys import LEEWAY_SECONDS
from kit import auth
from kit.auth import KeySource
from kit.errors import Permanent, Transient
from kit.ring import Ring, RingKey, write_ring
from registry.decisions import DecisionReader

KEY, OTHER = new_key(), new_key()
EPOCH = int(AT.timestamp())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MIN_REFRESH_SECONDS", 0.0)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    publish(tmp_path / "decision.jwks.json", KEY)
    return tmp_path / "decision.jwks.json"


@pytest.fixture
def reader(jwks: Path) -> DecisionReader:
    return DecisionReader(KeySource(str(jwks)))


async def refused(reader: DecisionReader, token: str, *, revocations: bool = False) -> Permanent:
    with pytest.raises(Permanent) as caught:
        await (reader.read_revocation(token) if revocations else reader.read(token))
    for part in token.split("."):
        assert len(part) < 20 or part not in caught.value.detail
    return caught.value


def spoil(path: Path, text: str | None) -> None:
    """Another text in the file, or no file at all."""
    path.unlink()
    if text is not None:
        path.write_text(text)


async def test_what_the_service_signs_is_read(reader: DecisionReader) -> None:
    assert await reader.read(sign(decision(), KEY)) == decision()
    assert await reader.read_revocation(sign(revocation(), KEY)) == revocation()


@pytest.mark.parametrize("how", BENT)
async def test_a_bent_decision_is_refused(reader: DecisionReader, how: str) -> None:
    bend, code = BENT[how]
    error = await refused(reader, bend(sign(decision(), KEY), KEY))
    assert error.code == f"decision-{code}", error.detail
    assert await reader.read(sign(decision(), KEY)) == decision(), "and the next one is read"


async def test_a_decision_is_no_revocation_and_the_other_way_round(reader: DecisionReader) -> None:
    assert (await refused(reader, sign(revocation(), KEY))).code == "decision-malformed"
    assert (await refused(reader, sign(decision(), KEY), revocations=True)).code == "revocation-malformed"


# What is published of the key, the date of what it signed in seconds from AT, and what comes of it.
OVER_TIME: dict[str, tuple[dict[str, Any], float, str | None]] = {
    "in use": ({}, 0, None),
    "in use, with its beginning": ({"iat": EPOCH - 10, "nbf": EPOCH - 10}, 0, None),
    "dated within the leeway before its beginning": ({"nbf": EPOCH}, -LEEWAY_SECONDS, None),
    "dated before its beginning": ({"nbf": EPOCH}, -LEEWAY_SECONDS - 0.001, "stale-key"),
    "begun, nobody knows when": ({"nbf": "yesterday"}, 10**8, "stale-key"),
    "nothing said": ({"exp": None, "revoked": None}, 0, None),
    "retired later": ({"exp": EPOCH + 100}, 0, None),
    "to be retired": ({"exp": EPOCH + 10**9}, 0, None),
    "retired, dated long before": ({"exp": EPOCH}, -(10**8), None),
    "retired, dated within the leeway": ({"exp": EPOCH}, LEEWAY_SECONDS, None),
    "retired, dated after": ({"exp": EPOCH}, LEEWAY_SECONDS + 0.001, "stale-key"),
    "retired, dated long after": ({"exp": EPOCH}, 10**8, "stale-key"),
    "retired with a fraction": ({"exp": EPOCH + 0.5}, LEEWAY_SECONDS + 0.6, "stale-key"),
    "retired, nobody knows when": ({"exp": "yesterday"}, -(10**8), "stale-key"),
    "retired, at no number": ({"exp": float("nan")}, -(10**8), "stale-key"),
    "revoked": ({"revoked": {"revoked_at": EPOCH - 60, "reason": "compromised"}}, 0, "revoked-key"),
    "revoked, dated before": ({"revoked": {"revoked_at": EPOCH}}, -(10**8), "revoked-key"),
    "revoked later": ({"revoked": {"revoked_at": EPOCH + 10**8}}, 0, "revoked-key"),
    "revoked after it was retired": ({"exp": EPOCH + 1, "revoked": {"revoked_at": EPOCH + 2}}, 0, "revoked-key"),
    "revoked, nobody knows when": ({"revoked": {}}, 0, "revoked-key"),
    "revoked in another way": ({"revoked": True}, 0, "revoked-key"),
    "revoked at no time": ({"revoked": {"revoked_at": 10**30, "reason": 5}}, 0, "revoked-key"),
}


@pytest.mark.parametrize("how", OVER_TIME)
async def test_a_key_over_time(reader: DecisionReader, jwks: Path, how: str) -> None:
    members, seconds, code = OVER_TIME[how]
    publish(jwks, OTHER, (KEY, members))
    dated = AT + timedelta(seconds=seconds)
    made, ordered = sign(decision(decided_at=dated), KEY), sign(revocation(revoked_at=dated), KEY)
    if code is None:
        assert (await reader.read(made)).decided_at == dated
        assert (await reader.read_revocation(ordered)).revoked_at == dated
        return
    error = await refused(reader, made)
    assert error.code == f"decision-{code}"
    assert str(KEY.kid) in error.detail
    assert (await refused(reader, ordered, revocations=True)).code == f"revocation-{code}"
    assert await reader.read(sign(decision(), OTHER)) == decision(), "another key is as good as before"


async def test_what_is_said_of_a_revoked_key(reader: DecisionReader, jwks: Path) -> None:
    publish(jwks, (KEY, {"revoked": {"revoked_at": EPOCH, "reason": "compromised"}}))
    detail = (await refused(reader, sign(decision(), KEY))).detail
    assert detail.endswith("which was revoked at 2026-01-02T03:04:05+00:00 (compromised)")


async def test_a_bad_signature_under_the_name_of_a_revoked_key_is_a_bad_signature(
    reader: DecisionReader, jwks: Path
) -> None:
    """`decision-revoked-key` means that somebody has that key."""
    publish(jwks, (KEY, {"revoked": {"revoked_at": EPOCH}}))
    assert (await refused(reader, sign(decision(), new_key(str(KEY.kid))))).code == "decision-bad-signature"


async def test_a_rotation_is_taken_up_at_the_first_decision_and_the_former_key_stays_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "decision.jwk", time.time()
    (tmp_path / "decision.jwks.json").touch()
    ring = Ring((RingKey(KEY),))
    write_ring(path, ring, now)
    reader = DecisionReader(KeySource(str(tmp_path / "decision.jwks.json")))
    before = sign(decision(), KEY)
    assert await reader.read(before) == decision()
    ring = ring.rotated(now, now)
    write_ring(path, ring, now)
    made = decision(version=2, decided_at=datetime.now(UTC))
    assert await reader.read(sign(made, ring.signing(now))) == made
    assert await reader.read(before) == decision()
    late = sign(decision(decided_at=datetime.now(UTC) + timedelta(seconds=LEEWAY_SECONDS + 5)), KEY)
    assert (await refused(reader, late)).code == "decision-stale-key"


async def test_a_revocation_is_noticed_within_the_maximum_age(jwks: Path) -> None:
    token, age = sign(decision(), KEY), 0.3
    reader = DecisionReader(KeySource(str(jwks), max_age=age))
    assert await reader.read(token) == decision()
    publish(jwks, OTHER, (KEY, {"revoked": {"revoked_at": EPOCH}}))
    began = time.monotonic()
    with pytest.raises(Permanent, match="revoked"):
        while time.monotonic() < began + 20:
            await reader.read(token)
    assert time.monotonic() - began < age + 5, "of which the machine may take some"


@pytest.mark.parametrize("text", [None, "", "[]", '{"keys": []}', json.dumps({"keys": [{"kty": "oct", "k": 5}]})])
async def test_without_keys_nobody_can_tell_and_the_record_is_tried_again(
    reader: DecisionReader, jwks: Path, text: str | None
) -> None:
    spoil(jwks, text)
    with pytest.raises(Transient):
        await reader.read(sign(decision(), KEY))
    publish(jwks, KEY)
    assert isinstance(await reader.read(sign(decision(), KEY)), Decision)


async def test_while_the_source_is_away_known_keys_count_and_unknown_ones_wait(
    reader: DecisionReader, jwks: Path
) -> None:
    assert await reader.read(sign(decision(), KEY)) == decision()
    spoil(jwks, None)
    assert isinstance(await reader.read_revocation(sign(revocation(), KEY)), Revocation)
    with pytest.raises(Transient):
        await reader.read(sign(decision(), OTHER))
    publish(jwks, KEY, OTHER)
    assert await reader.read(sign(decision(), OTHER)) == decision()


async def test_a_long_decision_is_read_and_a_longer_one_is_not_signed(reader: DecisionReader) -> None:
    long = [decision(waivers=("x" * 490,) * n) for n in (1_500, 1_600)]
    token = sign(long[0], KEY)
    assert 980_000 < len(token) <= 1_000_000
    assert await reader.read(token) == long[0]
    with pytest.raises(ValueError, match="too many to sign"):
        sign(long[1], KEY)
