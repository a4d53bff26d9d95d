"""What the registry needs beside the common settings."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from kit.settings import Settings


class RegistrySettings(Settings):
    port: int = 8801

    decision_jwks: str
    # The private key that signs pins, a JWK. All replicas share it.
    serving_key: Path
    # Raise it after the database was restored from a backup: servers then follow pins whose sequence is lower again.
    serving_epoch: Annotated[int, Field(ge=0, le=2**31)] = 0
    transition_hours: float = 72.0
    # How long a call of an MLflow client waits for the decision that it needs, in seconds; then it fails.
    mlflow_wait_seconds: Annotated[float, Field(ge=0, le=30)] = 5.0

    s3_endpoint: str
    s3_public_endpoint: str | None = None
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str = "hallmark"
    s3_region: str = "us-east-1"
    # Where artifacts may be registered from by their address: `bucket` or `bucket/prefix/`, for one workspace
    # `workspace:bucket/prefix/`. Whoever may register there can read it. The registry's own bucket is never one.
    reference_buckets: Annotated[tuple[str, ...], NoDecode] = ()
    # How many versions are verified at the same time; each takes a process of up to 2 GB and a database session.
    verifications: Annotated[int, Field(ge=1, le=16)] = 2

    registry_url: str = "http://127.0.0.1:8801"
    approval_url: str = "http://127.0.0.1:8802"
    audit_url: str = "http://127.0.0.1:8803"
    notifier_url: str = "http://127.0.0.1:8804"
    console_url: str = "http://127.0.0.1:8800"

    @field_validator("reference_buckets", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
