"""Pins: what a server logged of the version it answered with, signed by the registry (`hallmark.pins` reads them)."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from contracts.payload import Digest, Line, ModelName, Target, VersionNumber, Workspace
from kit import signed
from kit.auth import KeySource
from kit.problems import Problem

PIN_TYPE = "hallmark-pin+jws"
MAX_PIN = 4_000


class PinClaims(BaseModel):
    """What the registry signed: at `iat` (seconds since 1970), `target` of the model was this version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    workspace: Workspace
    model: ModelName
    target: Target
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    status: Line | None = None
    sequence: int
    iat: int

    @property
    def issued_at(self) -> datetime:
        """Raises ValueError beyond the years 1 to 9999."""
        try:
            return datetime.fromtimestamp(self.iat, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError("the pin is of no year that can be told") from error


class Pins:
    """Reads pins with the registry's serving keys: the path or URL of `GET /v1/keys/serving`."""

    def __init__(self, keys: KeySource | None) -> None:
        self._keys = keys

    async def read(self, pin: str) -> PinClaims:
        """The claims of a pin that the registry signed.

        Raises:
            Problem: 422 `pin-...`, it is none; 501 without keys, for then nobody can tell.
            Transient: the keys cannot be read.
        """
        if self._keys is None:
            raise Problem(501, "pin-keys-missing", "set HALLMARK_SERVING_JWKS so that pins can be verified")
        try:
            claims = await signed.read(pin, PIN_TYPE, PinClaims, self._keys, lambda said: said.issued_at)
        except signed.Refused as refused:
            raise Problem(422, f"pin-{refused.code}", f"the pin was refused: {refused.detail}") from refused
        except ValueError as error:
            raise Problem(422, "pin-malformed", str(error)) from error
        return claims
