"""Settings of the audit service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from kit.settings import Settings

# The rules for a signed-note key name (C2SP signed-note): no white space, no plus.
Origin = Annotated[str, StringConstraints(pattern=r"^[^\s+\x00-\x20\x7f]{1,200}$")]


class AuditSettings(Settings):
    """`checkpoint_origin` names the log for ever: two logs must not share it.

    With `decision_jwks` (path or URL) the views believe only changes whose signed decision verifies. With
    `serving_jwks` (path or URL, the registry's `GET /v1/keys/serving`) pins can be explained.
    """

    port: int = 8803
    checkpoint_key: Path
    decision_jwks: str | None = None
    serving_jwks: str | None = None
    checkpoint_origin: Origin = "hallmark.example/log/audit"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_publish_seconds: Annotated[float, Field(ge=0)] = 30.0
