"""Rings of keys: one signs at any time, what it signed stays checkable, and nothing is lost on the way to the disk."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from kit.ring import REASONS, Ring, RingKey, held, public_path, read_ring, write_ring

NOW = 1_700_000_000


def new_key(kid: str | None = None) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid} if kid else None, auto_kid=kid is None)


def member(name: str, **more: Any) -> dict[str, Any]:
    return {**new_key(name).as_dict(private=True), **more}


def public(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name != "d"}


def states(ring: Ring, at: float = NOW) -> list[str]:
    return [key.state(at) for key in ring.keys]


def kids(ring: Ring) -> list[str]:
    return [key.kid for key in ring.keys]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "decision.jwk").write_text(json.dumps(member("first")))
    return tmp_path / "decision.jwk"


@pytest.fixture
def ring(path: Path) -> Ring:
    return read_ring(path, NOW)


def test_one_private_jwk_is_one_active_key(ring: Ring) -> None:
    assert states(ring) == ["active"]
    assert ring.signing(NOW).kid == "first"
    assert ring.published()["keys"][0].keys() == {"kty", "crv", "x", "kid", "use", "alg"}


def test_rotation_retires_the_former_key_and_publishes_both(ring: Ring) -> None:
    rotated = ring.rotated(NOW, NOW)
    assert states(rotated) == ["retired", "active"]
    assert kids(rotated)[0] == "first"
    old, new = rotated.published()["keys"]
    assert (old["kid"], old["exp"], "nbf" in old) == ("first", NOW, False)
    assert (new["iat"], new["nbf"], "exp" in new) == (NOW, NOW, False)
    assert rotated.signing(NOW).kid == new["kid"]
    assert ring.signing(NOW).kid == "first", "the former ring is as it was"


def test_a_rotation_may_be_announced_before(ring: Ring) -> None:
    rotated = ring.rotated(NOW, NOW + 600)
    assert states(rotated) == ["active", "waiting"]
    assert states(rotated, NOW + 599.9) == ["active", "waiting"]
    assert states(rotated, NOW + 600) == ["retired", "active"]
    assert rotated.published()["keys"][1]["nbf"] == rotated.published()["keys"][0]["exp"] == NOW + 600
    with pytest.raises(ValueError, match="waits already"):
        rotated.rotated(NOW + 1, NOW + 1)
    assert states(rotated.rotated(NOW + 601, NOW + 601), NOW + 601) == ["retired", "retired", "active"]


def test_two_rotations_in_one_second(ring: Ring) -> None:
    assert states(ring.rotated(NOW + 0.1, NOW + 0.1).rotated(NOW + 0.2, NOW + 0.2), NOW + 0.3) == [
        *("retired", "retired", "active")
    ]


# After how many seconds the new key signs, which ones are revoked, and what comes of it.
REVOKED: dict[str, tuple[int | None, list[int], list[str]]] = {
    "the only key": (None, [0], ["revoked", "active"]),
    "a retired key": (0, [0], ["revoked", "active"]),
    "the active key": (0, [1], ["retired", "revoked", "active"]),
    "both": (0, [0, 1], ["revoked", "revoked", "active"]),
    "the active key, while another waits": (600, [0], ["revoked", "active"]),
    "the key that waits": (600, [1], ["active", "revoked"]),
    "the active key and the one that waits": (600, [0, 1], ["revoked", "revoked", "active"]),
}


@pytest.mark.parametrize("what", REVOKED)
def test_revocation_leaves_one_key_that_signs(ring: Ring, what: str) -> None:
    after, which, expected = REVOKED[what]
    before = ring if after is None else ring.rotated(NOW, NOW + after)
    revoked = before.revoked([kids(before)[n] for n in which], NOW + 1, "compromised")
    assert states(revoked, NOW + 1) == expected
    for later in (NOW + 600, NOW + 10**9):
        assert revoked.signing(later).kid == revoked.signing(NOW + 1).kid, "no end is planned any more"
    for n in which:
        jwk = revoked.published()["keys"][n]
        assert jwk["revoked"] == {"revoked_at": NOW + 1, "reason": "compromised"}


def test_what_cannot_be_revoked(ring: Ring) -> None:
    with pytest.raises(ValueError, match=r"no key is called 'nobody'; known are first"):
        ring.revoked(["nobody"], NOW, "unspecified")
    revoked = ring.revoked(["first"], NOW, "unspecified")
    with pytest.raises(ValueError, match="first is revoked already"):
        revoked.revoked(["first"], NOW, "unspecified")


def test_to_the_disk_and_back(path: Path, ring: Ring) -> None:
    public_path(path).touch()
    rotated = ring.rotated(NOW, NOW).rotated(NOW + 5, NOW + 5).revoked(["first"], NOW + 6, "superseded")
    write_ring(path, rotated, NOW + 7)
    found = read_ring(path, NOW + 7)
    assert [(k.kid, k.iat, k.not_before, k.not_after, k.revoked_at, k.reason) for k in found.keys] == [
        (k.kid, k.iat, k.not_before, k.not_after, k.revoked_at, k.reason) for k in rotated.keys
    ]
    assert found.published() == rotated.published() == json.loads(public_path(path).read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_path(path).stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in path.parent.iterdir()) == ["decision.jwk", "decision.jwks.json"]


def test_only_a_key_that_may_sign_keeps_its_private_half(path: Path, ring: Ring) -> None:
    write_ring(path, ring.rotated(NOW, NOW).rotated(NOW + 1, NOW + 60).revoked(["first"], NOW + 2, REASONS[0]), NOW + 3)
    assert ["d" in jwk for jwk in json.loads(path.read_text())["keys"]] == [False, True, True]
    write_ring(path, read_ring(path, NOW + 60), NOW + 60)
    assert ["d" in jwk for jwk in json.loads(path.read_text())["keys"]] == [False, False, True]
    assert not any("d" in jwk for jwk in read_ring(path, NOW + 60).published()["keys"])


def test_no_published_set_appears_where_there_was_none(path: Path, ring: Ring) -> None:
    write_ring(path, ring.rotated(NOW, NOW), NOW)
    assert not public_path(path).exists()


def test_a_link_stays_a_link(path: Path, ring: Ring) -> None:
    link = path.parent / "elsewhere"
    link.mkdir()
    (link / "link.jwk").symlink_to(path)
    write_ring(link / "link.jwk", ring.rotated(NOW, NOW), NOW)
    assert (link / "link.jwk").is_symlink()
    assert len(read_ring(path, NOW).keys) == 2


def test_a_write_that_fails_leaves_the_file_as_it_was(path: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_ring(path, ring.rotated(NOW, NOW), NOW)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["decision.jwk"]


def test_a_reader_never_sees_half_a_file(path: Path, ring: Ring) -> None:
    public_path(path).write_text(json.dumps(ring.published()))
    done = threading.Event()

    def rotate() -> None:
        now, present = NOW, ring
        for _ in range(40):
            now += 1
            present = present.rotated(now, now)
            write_ring(path, present, now)
        done.set()

    writer = threading.Thread(target=rotate)
    writer.start()
    while not done.is_set():
        assert read_ring(path, NOW + 100).signing(NOW + 100).is_private
        assert json.loads(public_path(path).read_text())["keys"]
    writer.join()
    assert len(read_ring(path, NOW + 100).keys) == 41


def test_changes_at_the_same_time_are_made_one_after_the_other(path: Path) -> None:
    def change() -> None:
        with held(path):
            write_ring(path, read_ring(path, NOW).rotated(NOW, NOW), NOW)

    threads = [threading.Thread(target=change) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ring(path, NOW + 200).keys) == 13


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_leaves_the_file_to_its_owner(path: Path, ring: Ring) -> None:
    os.chown(path, 10001, 10001)
    write_ring(path, ring.rotated(NOW, NOW), NOW)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10001)


BROKEN: dict[str, tuple[Any, str]] = {
    "no file": (None, "No such file"),
    "empty": ("", "Expecting value"),
    "no JSON": ("{", "Expecting"),
    "a list": ([], "neither a JWK nor"),
    "a text": ('"text"', "neither a JWK nor"),
    "deep": ("[" * 100_000, "recursion"),
    "no keys": ({"keys": []}, "exactly one key must be active, not 0"),
    "keys of a text": ({"keys": "abc"}, "neither a JWK nor"),
    "keys of null": ({"keys": None}, "neither a JWK nor"),
    "a key is a text": ({"keys": ["abc"]}, "neither a JWK nor"),
    "a secret": ({"kty": "oct", "k": "AAAA"}, ""),
    "a public key": (public(member("a")), "the active key a has no private half"),
    "another curve": (OKPKey.generate_key("X25519", {"kid": "a"}).as_dict(private=True), "curve"),
    "half a private key": (member("a", d="AAAA"), "32 bytes"),
    "another's public half": (member("a", x=new_key().as_dict()["x"]), "do not belong together"),
    "the kid is a number": (member("a", kid=5), "kid"),
    "the kid is empty": (member("a", kid=""), "kid"),
    "the kid is too long": (member("a", kid="x" * 201), "kid"),
    "the kid has a line": (member("a", kid="x\ny"), "kid"),
    "two active keys": ({"keys": [member("a"), member("b")]}, r"not 2 \(a, b\)"),
    "one kid twice": ({"keys": [member("a"), member("a", not_after=1)]}, "two keys are called a"),
    "all retired": ({"keys": [member("a", not_after=NOW)]}, "not 0"),
    "all revoked": ({"keys": [member("a", revoked_at=1)]}, "not 0"),
    "all wait": ({"keys": [member("a", not_before=NOW + 1)]}, "not 0"),
    "nobody follows": ({"keys": [member("a", not_after=NOW + 60)]}, "not 0"),
    "a gap": ({"keys": [member("a", not_after=NOW + 60), member("b", not_before=NOW + 61)]}, "not 0"),
    "both for a while": ({"keys": [member("a", not_after=NOW + 60), member("b", not_before=NOW + 59)]}, "not 2"),
    "the next one cannot sign": (
        {"keys": [member("a", not_after=NOW + 60), public(member("b", not_before=NOW + 60))]},
        "the active key b has no private half",
    ),
    "a time is a text": (member("a", not_before="1"), "not_before"),
    "a time is true": ({"keys": [member("a"), member("b", revoked_at=True)]}, "revoked_at"),
    "a time has a fraction": ({"keys": [member("a"), member("b", not_after=1.5)]}, "not_after"),
    "a time before all time": ({"keys": [member("a"), member("b", not_after=-1)]}, "not_after"),
    "a reason of their own": ({"keys": [member("a"), member("b", revoked_at=1, reason="?")]}, "reason"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_and_named(tmp_path: Path, what: str) -> None:
    document, text = BROKEN[what]
    path = tmp_path / "decision.jwk"
    if document is not None:
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ValueError, match=rf"(?s)decision\.jwk.*{text}") as caught:
        read_ring(path, NOW)
    for jwk in (document.get("keys") or [document]) if isinstance(document, dict) else []:
        assert not (isinstance(jwk, dict) and len(jwk.get("d", "")) > 8 and jwk["d"] in str(caught.value))


def test_a_retired_key_needs_no_private_half(tmp_path: Path) -> None:
    path = tmp_path / "decision.jwk"
    path.write_text(json.dumps({"keys": [public(member("a", not_after=NOW)), member("b")]}))
    assert states(read_ring(path, NOW)) == ["retired", "active"]


def test_what_is_shown_of_a_key_has_nothing_private() -> None:
    key = RingKey(new_key())
    assert str(key.key.as_dict(private=True)["d"]) not in repr(Ring((key,)))
