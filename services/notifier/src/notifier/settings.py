"""What the notifier needs beside the common settings."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from kit.settings import Settings
from notifier.breaker import rates_of

MINUTE, HOUR = 60, 3600
Seconds = Annotated[float, Field(gt=0)]


class NotifierSettings(Settings):
    port: int = 8804

    smtp_host: str | None = None
    smtp_port: int = 25
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_tls: bool = False
    mail_from: str = "hallmark@localhost"

    # Pauses after the first, second, ... failed try; one try more than pauses, then the delivery is dead.
    retry_seconds: Annotated[tuple[Seconds, ...], NoDecode, Field(min_length=1)] = (
        5,
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    )
    # Hosts, addresses and CIDRs that may be private, and may be reached without TLS.
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = ()
    # A private Ed25519 JWK that signs webhooks too (v1a); its public half is published. None: their secrets only do.
    webhook_key: Path | None = None
    # How long messages are signed with the former secret too, when a subscription gets a new one.
    secret_overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 24 * HOUR
    # How clients reach this service.
    notifier_url: str = "http://127.0.0.1:8804"
    # Where people look at requests and versions; messages link there.
    console_url: str | None = None
    # Of a Slack app: deliveries may go to channels then. `slack_interactive`: its clicks reach the approval service.
    slack_bot_token: SecretStr | None = None
    slack_interactive: bool = False
    slack_url: str = "https://slack.com/api"
    pagerduty_url: str = "https://events.pagerduty.com"  # in Europe https://events.eu.pagerduty.com
    # Schemes of Apprise that subscriptions may use. It opens connections past the guard of addresses: name none whose
    # host the address chooses (json, form, ...), unless whoever may subscribe may call what the notifier can.
    apprise_schemes: Annotated[tuple[str, ...], NoDecode] = ()
    # A file of 32 bytes or more that seals the secrets of subscriptions; without it none that has one is taken.
    secret_key: Path | None = None

    # How fast one endpoint of a channel is sent to; channels that are not named are sent to as fast as they take it.
    delivery_rates: str = "slack=1/s,pagerduty=120/min"

    # How often it is proved that no delivery was lost, of the events taken in within so many days.
    reconcile_seconds: Seconds = HOUR
    reconcile_days: Annotated[float, Field(gt=0)] = 7

    # How long the tries of deliveries that have ended are kept.
    attempt_days: Annotated[float, Field(gt=0)] = 90

    send_timeout_seconds: Seconds = 15
    lease_seconds: Annotated[float, Field(ge=1)] = 45
    delivery_poll_seconds: Seconds = 1
    delivery_concurrency: Annotated[int, Field(ge=1)] = 64
    delivery_concurrency_per_subscription: Annotated[int, Field(ge=1)] = 4

    @field_validator("lease_seconds")
    @classmethod
    def _longer_than_a_try(cls, value: float, others: ValidationInfo) -> float:
        if value <= others.data.get("send_timeout_seconds", 0):
            raise ValueError("must be more than HALLMARK_SEND_TIMEOUT_SECONDS")
        return value

    @field_validator("delivery_rates")
    @classmethod
    def _rates(cls, value: str) -> str:
        rates_of(value)
        return value

    @field_validator("retry_seconds", "webhook_allow", "apprise_schemes", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
