"""Rings of keys under any sequence of rotations, revocations and pauses, and signatures under any small change."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from joserfc.jwk import OKPKey
from tests.support.decisions import decision, new_key

from approval.decision import sign
from contracts.approval import DECISION_TYPE, Decision
from kit import signed
from kit.ring import REASONS, Reason, Ring, RingKey, public_path, read_ring, write_ring

KEY = new_key()
TOKEN = sign(decision(), KEY)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.= \n+/{"


class Rings(RuleBasedStateMachine):
    """What is true of a ring on the disk at any time. `signed_by` and `dead` are what we know of it ourselves."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "decision.jwk"
        self.now = 1_000_000.0
        self.signed_by: dict[str, float] = {}  # kid -> when it signed last
        self.dead: set[str] = set()

    @initialize()
    def first(self) -> None:
        public_path(self.path).touch()
        write_ring(self.path, Ring((RingKey(OKPKey.generate_key("Ed25519", auto_kid=True)),)), self.now)

    @property
    def ring(self) -> Ring:
        return read_ring(self.path, self.now)

    def waiting(self) -> bool:
        return any(key.state(self.now) == "waiting" for key in self.ring.keys)

    @rule(seconds=st.floats(0, 500))
    def pause(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.waiting())
    @rule(after=st.sampled_from([0, 0, 1, 60, 300]))
    def rotate(self, after: int) -> None:
        write_ring(self.path, self.ring.rotated(self.now, self.now + after), self.now)

    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def revoke(self, data: st.DataObject, reason: Reason) -> None:
        alive = [key.kid for key in self.ring.keys if key.kid not in self.dead]
        kids = data.draw(st.lists(st.sampled_from(alive), min_size=1, unique=True))
        write_ring(self.path, self.ring.revoked(kids, self.now, reason), self.now)
        self.dead |= set(kids)

    @invariant()
    def one_key_signs(self) -> None:
        if not self.path.exists():
            return
        kid = str(self.ring.signing(self.now).kid)
        assert kid not in self.dead
        self.signed_by[kid] = self.now

    @invariant()
    def whoever_signed_is_published_with_an_end_that_is_not_before(self) -> None:
        if not self.path.exists():
            return
        keys = {key["kid"]: key for key in json.loads(public_path(self.path).read_text())["keys"]}
        assert keys.keys() >= self.signed_by.keys()
        for kid, last in self.signed_by.items():
            assert kid in self.dead or keys[kid].get("exp", last) >= int(last)
        assert {kid for kid, key in keys.items() if "revoked" in key} == self.dead
        assert not any("d" in key for key in keys.values())

    @invariant()
    def nobody_signs_who_has_ended(self) -> None:
        if self.path.exists():
            stored = {key["kid"]: key for key in self.ring.stored(self.now)["keys"]}
            able = {kid for kid, key in stored.items() if "d" in key}
            assert able == {k.kid for k in self.ring.keys if k.state(self.now) in ("active", "waiting")}

    def teardown(self) -> None:
        self.directory.cleanup()


Rings.TestCase.settings = settings(max_examples=40, stateful_step_count=15)
TestRings = Rings.TestCase


def read(token: str) -> Decision | None:
    try:
        if signed.kid_of(token, DECISION_TYPE) != KEY.kid:
            return None
        return signed.verify(token, Decision, KEY)
    except signed.Refused:
        return None


@settings(max_examples=300)
@given(st.integers(0, len(TOKEN)), st.integers(0, 3), st.text(ALPHABET, max_size=3))
def test_any_other_text_is_refused(at: int, gone: int, put: str) -> None:
    bent = TOKEN[:at] + put + TOKEN[at + gone :]
    assert read(bent) == (decision() if bent == TOKEN else None)


@settings(max_examples=300)
@given(st.text() | st.lists(st.sampled_from([*TOKEN.split("."), "", "e30", "W10"]), max_size=5).map(".".join))
def test_nothing_crashes_and_only_the_token_is_read(text: str) -> None:
    assert read(text) == (decision() if text == TOKEN else None)
