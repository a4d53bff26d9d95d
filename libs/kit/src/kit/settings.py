"""Settings from the environment (`HALLMARK_*`), the same names in every run mode."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """What `python -m SERVICE migrate` needs. `admin_database_url` may make roles and schemas; nothing else uses it.
    `people_database_url`: where the vault is on; its role is made by audit's migration."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", frozen=True, extra="ignore")

    database_url: SecretStr
    admin_database_url: SecretStr | None = None
    people_database_url: SecretStr | None = None


class ProcessSettings(BaseSettings):
    """What every process needs: where its logs and traces go."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", frozen=True, extra="ignore")

    log_level: Annotated[str, Field(pattern="^(?i:debug|info|warning|error|critical)$")] = "info"
    log_format: Literal["console", "json"] = "console"
    otlp_endpoint: str | None = None


class Settings(ProcessSettings):
    """What every service needs. A service adds its own fields in its `settings.py`."""

    database_url: SecretStr
    database_pool: Annotated[int, Field(ge=1)] = 8
    # The vault of identities (`kit.people`): audit's database, with a role of its own. Without it events name people.
    people_database_url: SecretStr | None = None

    kafka_bootstrap: str
    kafka_idempotence: bool = True
    kafka_create_topics: bool = False
    kafka_replication: Annotated[int, Field(ge=1)] = 1
    # The least that Kafka's brokers allow by default: a dead member is noticed soon. Tansu allows less.
    kafka_session_seconds: Annotated[float, Field(ge=1)] = 6.0
    topic_prefix: str = ""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    # With the port the name of a replica: the static member of the consumer groups. Empty: a dynamic member.
    instance: str = Field(default_factory=socket.gethostname)

    auth_jwks: str
    auth_issuer: str = "hallmark"
    auth_audience: str = "hallmark"
    access_file: Path

    graceful_seconds: Annotated[float, Field(gt=0)] = 10.0  # 0 would mean "do not wait" to FastStream


class KafkaSettings(BaseSettings):
    """What `python -m kit.topics` needs."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", frozen=True, extra="ignore")

    kafka_bootstrap: str
    kafka_replication: int = 1
    topic_prefix: str = ""
