"""Who is calling, and what they may do. Every service checks tokens itself; there is no shared session."""

import asyncio
import base64
import fnmatch
import json
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import structlog
import yaml
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet
from pydantic import ValidationError

from contracts.access import ALLOWED, Action, Role
from contracts.payload import Payload
from kit.errors import Transient
from kit.problems import Problem

log = structlog.get_logger()
# RFC 9864 prefers the name "Ed25519"; most verifiers in the field know "EdDSA" only.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")
ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "RS256"]
LEEWAY_SECONDS = 30
MIN_REFRESH_SECONDS = 5.0


@dataclass(frozen=True)
class Principal:
    """A verified caller. `issued_at` is when they proved who they are (epoch seconds)."""

    subject: str
    groups: frozenset[str]
    kind: str
    issued_at: int
    method: str


class KeySource:
    """A JWKS from a file or a URL, read again when a key id is unknown (keys rotate with overlap)."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._keys: KeySet | None = None
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    async def keys(self, kid: str | None = None) -> KeySet:
        """Raises Transient when the keys cannot be read and none are known."""
        if self._keys is not None and self._knows(self._keys, kid):
            return self._keys  # without the lock: a stranger's key id must not make others wait for a slow source
        async with self._lock:
            fresh = time.monotonic() - self._read_at <= MIN_REFRESH_SECONDS
            if self._keys is None or not (fresh or self._knows(self._keys, kid)):
                self._read_at = time.monotonic()
                try:
                    self._keys = KeySet.import_key_set(await self._read())
                except (OSError, ValueError, TypeError, LookupError, httpx2.HTTPError, JoseError) as error:
                    if self._keys is None:
                        raise Transient(f"cannot read keys from {self._location}: {error!r}") from error
                    log.warning("keys not refreshed", location=self._location, error=repr(error))
            return self._keys

    async def find(self, kid: str | None) -> Key | None:
        """The key of that id; None only when a fresh read of the source does not have it.

        Raises:
            Transient: the source cannot be read, so nobody can tell.
        """
        keys = await self.keys(kid)
        if not self._knows(keys, kid):
            async with self._lock:
                await asyncio.sleep(max(0.0, self._read_at + MIN_REFRESH_SECONDS - time.monotonic()))
                self._read_at = time.monotonic()
                try:
                    self._keys = keys = KeySet.import_key_set(await self._read())
                except (OSError, ValueError, TypeError, LookupError, httpx2.HTTPError, JoseError) as error:
                    raise Transient(f"cannot read keys from {self._location}: {error!r}") from error
        return next((key for key in keys.keys if key.kid == kid), None)

    @staticmethod
    def _knows(keys: KeySet, kid: str | None) -> bool:
        return kid is None or any(key.kid == kid for key in keys.keys)

    async def _read(self) -> Any:
        if self._location.startswith(("http://", "https://")):
            async with httpx2.AsyncClient(timeout=5) as client:
                response = await client.get(self._location)
                response.raise_for_status()
                return response.json()
        return json.loads(await asyncio.to_thread(Path(self._location).read_text))


class Verifier:
    """Checks a bearer token: signature, issuer, audience, expiry."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str) -> None:
        self._keys = keys
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
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Problem(401, "unauthenticated", "send 'Authorization: Bearer <token>' (hallmark token create)")
        try:
            keys = await self._keys.keys(_kid(token))
            claims = jwt.decode(token.strip(), keys, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
            return Principal(
                subject=_text(claims["sub"]),
                groups=_groups(claims.get("groups", [])),
                # Fail closed: ordinary issuers give machines tokens too, and machines must not vote.
                kind=_text(claims.get("kind", "service")),
                issued_at=int(claims.get("auth_time") or claims["iat"]),
                method=_text(claims.get("amr", ["token"])[0]),
            )
        except JoseError as error:
            code = "token-expired" if error.error == "expired_token" else "token-invalid"
            raise Problem(401, code, f"the token was refused: {error.error}") from error
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise Problem(401, "token-invalid", "the token was refused: malformed") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise ValueError("a claim is not a printable text of 1 to 200 characters")
    return value


def _groups(claim: object) -> frozenset[str]:
    if not isinstance(claim, list):  # the letters of a text would pass as groups
        raise TypeError("the claim 'groups' is not a list")
    return frozenset(_text(group) for group in claim)


def _kid(token: str) -> str | None:
    encoded = token.strip().split(".")[0]
    header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    kid = header.get("kid") if isinstance(header, dict) else None
    return kid if isinstance(kid, str) else None


class Grant(Payload):
    """One line of the access file: a group holds a role on workspaces and models (glob patterns)."""

    group: str
    role: Role
    workspace: str = "*"
    model: str = "*"


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

    def roles(self, principal: Principal, workspace: str, model: str = "*") -> set[Role]:
        groups = principal.groups | {"everyone"}
        return {
            g.role
            for g in self._grants
            if g.group in groups and fnmatch.fnmatchcase(workspace, g.workspace) and fnmatch.fnmatchcase(model, g.model)
        }

    def patterns(self, principal: Principal, action: Action, workspace: str) -> frozenset[str]:
        """The patterns of the models on which the principal may do the action there, for queries over many."""
        groups = principal.groups | {"everyone"}
        return frozenset(
            g.model
            for g in self._grants
            if g.group in groups and action in ALLOWED[g.role] and fnmatch.fnmatchcase(workspace, g.workspace)
        )

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
