"""Settings of the approval service; each field is `HALLMARK_<FIELD>` in the environment."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from contracts.webhooks import key_of
from kit.settings import Settings
from policy.spec import Name

Seconds = Annotated[float, Field(ge=0, le=86_400)]


def _signs(secret: SecretStr) -> SecretStr:
    key_of(secret.get_secret_value())
    return secret


class ApprovalSettings(Settings):
    """`settle_seconds`: how long a complete quorum waits for a rejection cast at the same moment."""

    port: int = 8802
    decision_key: Path
    settle_seconds: Seconds = 0.25
    sweep_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0

    # Where the files of evidence lie; without a store evidence is links and what checks say. The bucket should be of
    # approval alone, with keys that open no other.
    s3_endpoint: str | None = None
    s3_public_endpoint: str | None = None
    s3_access_key: Annotated[SecretStr | None, Field(validate_default=True)] = None
    s3_secret_key: Annotated[SecretStr | None, Field(validate_default=True)] = None
    s3_bucket: str = "hallmark-evidence"
    s3_region: str = "us-east-1"

    # Webhook gates name one of these secrets (`whsec_...`): a JSON object of names and secrets.
    gate_secrets: Annotated[dict[Name, Annotated[SecretStr, AfterValidator(_signs)]], NoDecode] = Field(
        default_factory=dict
    )
    # Hosts, addresses and CIDRs of webhook gates that may be private, and may be reached without TLS.
    gate_allow: Annotated[tuple[str, ...], NoDecode] = ()
    gate_call_seconds: Annotated[float, Field(gt=0, le=300)] = 10
    gate_lease_seconds: Annotated[float, Field(ge=1, le=3_600)] = 30
    # The pause after the first call that came to nothing; each further one is twice as long.
    gate_retry_seconds: Annotated[float, Field(gt=0, le=300)] = 2
    gate_poll_seconds: Annotated[float, Field(gt=0, le=60)] = 1
    gate_concurrency: Annotated[int, Field(ge=1, le=500)] = 16
    gate_concurrency_each: Annotated[int, Field(ge=1, le=500)] = 4
    # Of the Slack app whose buttons vote; without it nobody votes by a click.
    slack_signing_secret: SecretStr | None = None
    # Hosts, addresses and CIDRs that a click may be answered at though they are private: for a stand-in of Slack.
    slack_allow: Annotated[tuple[str, ...], NoDecode] = ()
    # Where people look at requests.
    console_url: str | None = None
    # How clients, and external checks that answer later, reach this service.
    approval_url: str = "http://127.0.0.1:8802"

    @field_validator("gate_allow", "slack_allow", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("gate_secrets", mode="before")
    @classmethod
    def _object(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.strip() else {}
        except ValueError:
            raise ValueError("must be a JSON object of names and secrets") from None  # the text would hold them

    @field_validator("s3_access_key", "s3_secret_key")
    @classmethod
    def _with_the_store(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is None and others.data.get("s3_endpoint") is not None:
            raise ValueError("is needed with HALLMARK_S3_ENDPOINT")
        return value

    @field_validator("gate_lease_seconds")
    @classmethod
    def _longer_than_a_call(cls, value: float, others: ValidationInfo) -> float:
        if value <= others.data.get("gate_call_seconds", 0):
            raise ValueError("must be more than HALLMARK_GATE_CALL_SECONDS")
        return value
