"""Who is calling, and what they may do. Every service checks tokens itself; there is no shared session."""

import asyncio
import base64
import json
import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import structlog
import yaml
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet
from pydantic import AwareDatetime, ValidationError

from contracts.access import ALLOWED, Action, Role
from contracts.envelope import now
from contracts.keys import LEEWAY_SECONDS
from contracts.payload import Payload
from contracts.people import is_pseudonym
from kit.errors import Transient
from kit.outbound import tls
from kit.patterns import covers
from kit.people import People
from kit.problems import Problem

log = structlog.get_logger()
# RFC 9864 prefers the name "Ed25519"; most verifiers in the field know "EdDSA" only.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")
ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "RS256"]
MIN_REFRESH_SECONDS = 5.0
MAX_AGE_SECONDS = 60.0
READ_SECONDS = 5.0
PERSON = "person"


@dataclass(frozen=True)
class Principal:
    """A verified caller. `issued_at` is when their groups were known, `authenticated_at` when they proved who they are
    (epoch seconds), `method` how: every method that the token names, with spaces in between. `email_verified`: their
    issuer has seen that they read that mailbox."""

    subject: str
    groups: frozenset[str]
    kind: str
    issued_at: int
    method: str
    email: str | None = None
    authenticated_at: int = 0
    email_verified: bool = False


class KeySource:
    """A JWKS from a file or a URL, read again when a key id is unknown (keys rotate with overlap), and when it is older
    than `max_age` seconds (keys are revoked). While the source is away, what was read last counts."""

    def __init__(self, location: str, *, max_age: float = MAX_AGE_SECONDS) -> None:
        self._location = location
        self._max_age = max_age
        self._all: KeySet | None = None
        self._usable = KeySet([])
        self._read_at = self._tried_at = -math.inf  # when the last good read, and the last read, began
        self._lock = asyncio.Lock()

    async def keys(self, kid: str | None = None) -> KeySet:
        """The keys that are not revoked. Raises Transient when the keys cannot be read and none are known."""
        if self._all is not None and self._knows(kid) and (self._lock.locked() or not self._aged()):
            return self._usable  # without the lock: one who waits for a slow source must not make others wait
        async with self._lock:
            if self._all is None or (self._pause() <= 0 and (self._aged() or not self._knows(kid))):
                await self._refresh()
            return self._usable

    async def find(self, kid: str) -> Key | None:
        """The key of that id, even when it is revoked: its members `revoked` and `exp` tell.

        None only when a read of the source that began after the call does not have it.

        Raises:
            Transient: the source cannot be read, so nobody can tell.
        """
        asked = time.monotonic()
        if self._aged():
            async with self._lock:
                if self._all is None or (self._pause() <= 0 and self._aged()):
                    await self._refresh()
        while (found := self._named(kid)) is None and self._read_at < asked:
            await asyncio.sleep(max(0.0, self._pause()))
            async with self._lock:
                if self._read_at < asked and self._pause() <= 0:
                    await self._load()
        return found

    def _named(self, kid: str) -> Key | None:
        return next((key for key in self._all or () if key.kid == kid), None)

    def _knows(self, kid: str | None) -> bool:
        return kid is None or any(key.kid == kid for key in self._usable)

    def _aged(self) -> bool:
        return time.monotonic() - self._read_at > self._max_age

    def _pause(self) -> float:
        """Seconds until the source may be read again."""
        return self._tried_at + MIN_REFRESH_SECONDS - time.monotonic()

    async def _refresh(self) -> None:
        """Reads the source; one that is away does no harm when keys are known."""
        try:
            await self._load()
        except Transient as error:
            if self._all is None:
                raise
            age = None if math.isinf(self._read_at) else round(time.monotonic() - self._read_at)
            log.warning("keys not refreshed", location=self._location, age_seconds=age, error=str(error))

    async def _load(self) -> None:
        """Raises Transient when the source cannot be read."""
        began = self._tried_at = time.monotonic()
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._all = KeySet.import_key_set(await self._read())
        except (OSError, ValueError, TypeError, LookupError, httpx2.HTTPError, JoseError) as error:
            raise Transient(f"cannot read keys from {self._location}: {error!r}") from error
        self._read_at = began
        self._usable = KeySet([key for key in self._all if key.get("revoked") is None])

    async def _read(self) -> Any:
        if self._location.startswith(("http://", "https://")):
            async with httpx2.AsyncClient(timeout=READ_SECONDS, verify=tls()) as client:
                response = await client.get(self._location)
                response.raise_for_status()
                return response.json()
        return json.loads(await asyncio.to_thread(Path(self._location).read_text))


class Verifier:
    """Checks a bearer token: signature, issuer, audience, expiry. With `people`, callers get their pseudonyms."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, people: People | None = None) -> None:
        self._keys = keys
        self._people = people
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    async def principal(self, authorization: str | None) -> Principal:
        """The caller named by an `Authorization` header.

        Raises:
            Problem: 401, with what is wrong but nothing of the token.
            Exception: what keeps the vault from answering (`kit.errors.is_transient`).
        """
        found = await self._verified(authorization)
        if self._people is None:
            return found
        is_person = found.kind == PERSON
        if not is_person and is_pseudonym(found.subject):
            raise Problem(401, "token-invalid", "the token was refused: no service account is called like a pseudonym")
        subject, email = await self._people.meet(found.subject, found.email, person=is_person)
        return replace(found, subject=subject, email=email)

    async def _verified(self, authorization: str | None) -> Principal:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Problem(401, "unauthenticated", "send 'Authorization: Bearer <token>' (hallmark token create)")
        try:
            keys = await self._keys.keys(_kid(token))
            claims = jwt.decode(token.strip(), keys, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
            return Principal(
                subject=_subject(claims["sub"]),
                groups=_groups(claims.get("groups", [])),
                # Fail closed: ordinary issuers give machines tokens too, and machines must not vote.
                kind=_text(claims.get("kind", "service")),
                issued_at=_moment(claims["iat"]),
                method=_methods(claims.get("amr", ["token"])),
                email=_text(claims["email"]) if claims.get("email") else None,
                authenticated_at=_moment(claims.get("auth_time") or claims["iat"]),
                email_verified=claims.get("email_verified") is True,
            )
        except JoseError as error:
            code = "token-expired" if error.error == "expired_token" else "token-invalid"
            raise Problem(401, code, f"the token was refused: {error.error}") from error
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            raise Problem(401, "token-invalid", "the token was refused: malformed") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise ValueError("a claim is not a printable text of 1 to 200 characters")
    return value


def _subject(claim: object) -> str:
    if _text(claim).casefold().startswith("hallmark/"):  # what Hallmark itself acts as
        raise ValueError("the subject is a name of Hallmark's own")
    return _text(claim)


def _groups(claim: object) -> frozenset[str]:
    if not isinstance(claim, list):  # the letters of a text would pass as groups
        raise TypeError("the claim 'groups' is not a list")
    return frozenset(_text(group) for group in claim)


def _methods(claim: object) -> str:
    if not isinstance(claim, list):
        raise TypeError("the claim 'amr' is not a list")
    return _text(" ".join(dict.fromkeys("-".join(_text(method).split()) for method in claim)))


def _moment(claim: object) -> int:
    """Epoch seconds. A sign-in of the future would be fresh for ever."""
    if not isinstance(claim, int | float) or not 0 <= claim <= time.time() + LEEWAY_SECONDS:
        raise ValueError("a time is none of the past")
    return int(claim)


def _kid(token: str) -> str | None:
    encoded = token.strip().split(".")[0]
    header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    kid = header.get("kid") if isinstance(header, dict) else None
    return kid if isinstance(kid, str) else None


class Grant(Payload):
    """One line of the access file: a group holds a role on workspaces and models (glob patterns), for ever or `until`
    then: an auditor's visit ends by itself."""

    group: str
    role: Role
    workspace: str = "*"
    model: str = "*"
    until: AwareDatetime | None = None


class AccessFile(Payload):
    roles: tuple[Grant, ...]


class Access:
    """Maps groups to roles. Denied is the default. Everybody with a valid token is in the group `everyone`."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    @classmethod
    def load(cls, path: Path) -> "Access":
        """Reads the YAML access file.

        Raises:
            ValueError: the file is missing or malformed; the text says where.
        """
        try:
            return cls(AccessFile.model_validate(yaml.safe_load(path.read_text())).roles)
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise ValueError(f"access file {path}: {error}") from error

    def _held(self, principal: Principal) -> list[Grant]:
        groups, at = principal.groups | {"everyone"}, now()
        return [g for g in self._grants if g.group in groups and (g.until is None or at < g.until)]

    def roles(self, principal: Principal, workspace: str, model: str = "*") -> set[Role]:
        held = self._held(principal)
        return {g.role for g in held if covers(g.workspace, workspace) and covers(g.model, model)}

    def patterns(self, principal: Principal, action: Action, workspace: str) -> frozenset[str]:
        """The patterns of the models on which the principal may do the action there, for queries over many."""
        held = self._held(principal)
        return frozenset(g.model for g in held if action in ALLOWED[g.role] and covers(g.workspace, workspace))

    def grants(self, principal: Principal, action: Action) -> frozenset[tuple[str, str]]:
        """The patterns of workspaces, and of models in them, on which the principal may do the action."""
        return frozenset((g.workspace, g.model) for g in self._held(principal) if action in ALLOWED[g.role])

    def allows(self, principal: Principal, action: Action, workspace: str, model: str = "*") -> bool:
        return any(action in ALLOWED[role] for role in self.roles(principal, workspace, model))

    def require(self, principal: Principal, action: Action, workspace: str, model: str = "*") -> None:
        """Raises Problem 403 unless a role of the caller allows the action there."""
        if not self.allows(principal, action, workspace, model):
            roles = self.roles(principal, workspace, model)
            have = ", ".join(sorted(roles)) or "no role"
            needed = ", ".join(sorted(role for role, actions in ALLOWED.items() if action in actions))
            raise Problem(
                403,
                "forbidden",
                f"{principal.subject} may not {action.replace('_', ' ')} in {workspace}/{model}: "
                f"has {have}; needs one of {needed}",
            )
