"""Settings of the audit service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from kit.settings import Settings

# The rules for a signed-note key name (C2SP signed-note): no white space, no plus.
Origin = Annotated[str, StringConstraints(pattern=r"^[^\s+\x00-\x20\x7f]{1,200}$")]


class AuditSettings(Settings):
    """`checkpoint_origin` names the log for ever: two logs must not share it.

    With `decision_jwks` (path or URL) the views believe only changes whose signed decision verifies. With `log_public`
    anybody may read tiles and bundles, as C2SP tlog-tiles means it; without, auditors only. With `serving_jwks` (path
    or URL, the registry's `GET /v1/keys/serving`) pins can be explained.
    """

    port: int = 8803
    checkpoint_key: Path
    decision_jwks: str | None = None
    serving_jwks: str | None = None
    checkpoint_origin: Origin = "hallmark.example/log/audit"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_publish_seconds: Annotated[float, Field(ge=0)] = 30.0
    log_public: bool = False

    # Tiles, bundles, checkpoints and archives. The bucket should be audit's alone. What is in it is locked for so many
    # days (S3 Object Lock, COMPLIANCE) where the store can: half a year is the EU AI Act's floor (articles 19 and 26).
    s3_endpoint: str
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str = "hallmark-audit"
    s3_region: str = "us-east-1"
    archive_lock_days: Annotated[int, Field(ge=0, le=36_500)] = 184
