"""The private keys of one purpose over time: which one signs now, which signed before, which nobody may trust.

The file is one private JWK, or a JWK Set whose keys have more members: `iat`, `not_before`, `not_after` (from when and
until when it signs), `revoked_at` and `reason`. Times are epoch seconds. Exactly one key signs at any time from now on.
A key that signs no more stays in the file without its private half, so that whoever steals the file cannot sign in the
past with it; its public half is published for ever, since what it signed is checked years later.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

State = Literal["waiting", "active", "retired", "revoked"]
# The reasons of OpenID Federation's historical keys.
Reason = Literal["unspecified", "compromised", "superseded"]
REASONS: tuple[Reason, ...] = ("unspecified", "compromised", "superseded")
CURVE: Literal["Ed25519"] = "Ed25519"
_JWK = ("kty", "crv", "x", "d", "kid")
_TIMES = ("iat", "not_before", "not_after", "revoked_at")


@dataclass(frozen=True)
class RingKey:
    """`key` lacks its private half when it signs no more."""

    key: OKPKey
    iat: int | None = None
    not_before: int | None = None
    not_after: int | None = None
    revoked_at: int | None = None
    reason: Reason | None = None

    @property
    def kid(self) -> str:
        return str(self.key.kid)

    def state(self, at: float) -> State:
        if self.revoked_at is not None:
            return "revoked"
        if self.not_after is not None and self.not_after <= at:
            return "retired"
        return "waiting" if self.not_before is not None and self.not_before > at else "active"

    def stored(self, at: float) -> dict[str, Any]:
        """The member of the file; without the private half when it signs no more."""
        private = self.key.is_private and self.state(at) in ("waiting", "active")
        own = {name: getattr(self, name) for name in (*_TIMES, "reason")}
        return {
            **self.key.as_dict(private=private),
            "kid": self.kid,
            **{name: value for name, value in own.items() if value is not None},
        }

    def published(self) -> dict[str, Any]:
        """The public JWK, with the members of OpenID Federation's historical keys: iat, nbf, exp, revoked."""
        times = {"iat": self.iat, "nbf": self.not_before, "exp": self.not_after}
        jwk: dict[str, Any] = {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": "EdDSA"}
        jwk.update((name, at) for name, at in times.items() if at is not None)
        if self.revoked_at is not None:
            jwk["revoked"] = {"revoked_at": self.revoked_at, "reason": self.reason or "unspecified"}
        return jwk


@dataclass(frozen=True)
class Ring:
    """Keys in the order they were made. `plain`: the file holds one JWK and no set."""

    keys: tuple[RingKey, ...]
    plain: bool = field(default=False, compare=False)

    def signing(self, at: float) -> OKPKey:
        """Raises ValueError unless exactly one key signs at that time."""
        found = [key for key in self.keys if key.state(at) == "active"]
        if len(found) != 1:
            names = ", ".join(key.kid for key in found) or "none"
            raise ValueError(f"exactly one key must be active, not {len(found)} ({names})")
        if not found[0].key.is_private:
            raise ValueError(f"the active key {found[0].kid} has no private half")
        return found[0].key

    def check(self, at: float) -> "Ring":
        """The ring itself. Raises ValueError unless one key signs at every time from `at` on."""
        if twice := {key.kid for key in self.keys if [k.kid for k in self.keys].count(key.kid) > 1}:
            raise ValueError(f"two keys are called {', '.join(sorted(twice))}")
        ends = {end for key in self.keys for end in (key.not_before, key.not_after) if end is not None}
        for moment in sorted({at, *(end for end in ends if end > at)}):
            self.signing(moment)
        return self

    def rotated(self, at: float, starts: float) -> "Ring":
        """With a new key that signs from `starts` on, when the present one ends.

        Raises:
            ValueError: another one waits already.
        """
        for key in self.keys:
            if key.state(at) == "waiting":
                raise ValueError(f"the key {key.kid} waits already, to sign from {key.not_before} on")
        moment = int(starts)
        former = tuple(replace(k, not_after=moment) if k.state(at) == "active" else k for k in self.keys)
        return Ring((*former, _new(at, moment))).check(at)

    def revoked(self, kids: Sequence[str], at: float, reason: Reason) -> "Ring":
        """With these keys revoked. If none is left to sign, the one that waits begins now, or else a new one.

        Raises:
            ValueError: a key is not known, or revoked already.
        """
        states = {key.kid: key.state(at) for key in self.keys}
        for kid in kids:
            if kid not in states:
                raise ValueError(f"no key is called {kid!r}; known are {', '.join(states)}")
            if states[kid] == "revoked":
                raise ValueError(f"the key {kid} is revoked already")
        keys = [replace(k, revoked_at=int(at), reason=reason) if k.kid in kids else k for k in self.keys]
        active, waiting = ([k for k in keys if k.state(at) == state] for state in ("active", "waiting"))
        if active and not waiting:
            keys = [replace(k, not_after=None) if k in active else k for k in keys]
        elif waiting and not active:
            keys = [replace(k, not_before=int(at)) if k in waiting else k for k in keys]
        elif not active:
            keys.append(_new(at, int(at)))
        return Ring(tuple(keys)).check(at)

    def published(self) -> dict[str, Any]:
        """The public JWK Set (RFC 7517)."""
        return {"keys": [key.published() for key in self.keys]}

    def stored(self, at: float) -> dict[str, Any]:
        return {"keys": [key.stored(at) for key in self.keys]}


def read_ring(path: Path, at: float) -> Ring:
    """Raises ValueError, which names the file and what is wrong with it."""
    try:
        document = json.loads(path.read_text())
        plain = not isinstance(document, dict) or "keys" not in document
        members = [document] if plain else document["keys"]
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise ValueError("it is neither a JWK nor a JWK Set")
        return Ring(tuple(_member(member) for member in members), plain).check(at)
    except (OSError, ValueError, TypeError, LookupError, RecursionError, JoseError) as error:
        raise ValueError(f"cannot read the key {path}: {error}") from error


def write_ring(path: Path, ring: Ring, at: float) -> None:
    """Replaces the file in one step, and the published set beside it (`NAME.jwks.json`) where there is one.

    Raises:
        OSError: it cannot be written. Then the private file is as before.
    """
    path = path.resolve()  # a link stays a link
    public = public_path(path)
    if public.exists():  # first: what is signed with a new key can be checked at once
        replace_file(public, json.dumps(ring.published()), 0o644)
    replace_file(path, json.dumps(ring.stored(at)), 0o600)


def public_path(path: Path) -> Path:
    return path.with_suffix(".jwks.json")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else changes the ring meanwhile. Raises OSError when its directory is not there."""
    directory = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def replace_file(path: Path, text: str, mode: int) -> None:
    """Writes the whole file or nothing of it. It survives a loss of power, and keeps its owner."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            if path.exists() and (was := path.stat()).st_uid != os.geteuid():
                os.fchown(file.fileno(), was.st_uid, was.st_gid)  # root works for a service that is not root
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _new(at: float, starts: int) -> RingKey:
    while True:
        key = OKPKey.generate_key(CURVE, auto_kid=True)
        if not str(key.kid).startswith("-"):  # on a command line it would look like an option
            return RingKey(key, iat=int(at), not_before=starts)


def _member(member: dict[str, Any]) -> RingKey:
    key = OKPKey.import_key({name: member[name] for name in _JWK if name in member})
    key.ensure_kid()
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", str(key.kid)):  # it must fit into the header of a signature
        raise ValueError("the kid of a key is not a text of 1 to 200 visible characters")
    if key.curve_name != CURVE:
        raise ValueError(f"the curve of the key {key.kid} is not {CURVE}")
    given = key.as_dict(private=False)["x"]
    true = OKPKey.import_key(key.private_key or key.public_key).as_dict(private=False)["x"]
    if given != true:
        raise ValueError(f"the halves of the key {key.kid} do not belong together")
    times: dict[str, Any] = {name: member[name] for name in _TIMES if member.get(name) is not None}
    for name, value in times.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} of the key {key.kid} is not a number of seconds")
    reason = member.get("reason")
    if reason is not None and reason not in REASONS:
        raise ValueError(f"the reason of the key {key.kid} is not one of {', '.join(REASONS)}")
    return RingKey(key, reason=reason, **times)
