"""Settings of the audit service, and of the process that signs for it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import NoDecode

from audit.note import ED25519, MAX_NAME_BYTES, NoteError, parse_vkey
from kit.settings import ProcessSettings, Settings


def _short(origin: str) -> str:
    if len(origin.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"must have at most {MAX_NAME_BYTES} bytes")
    return origin


def _address(url: str) -> str:
    parts = urlsplit(url)
    if url.startswith("unix:/") or (parts.scheme in ("http", "https") and parts.hostname and not parts.username):
        return url
    raise ValueError("must be unix:/path, http://host:port or https://host:port")


def _cosigner(line: str) -> str:
    try:
        key = parse_vkey(line)
    except NoteError as error:
        raise ValueError(str(error)) from error
    if key.kind == ED25519:
        raise ValueError("must be the key of a witness (kind 0x04 or 0x06)")
    return key.vkey


def _log_key(line: str) -> str:
    try:
        return parse_vkey(line).vkey
    except NoteError as error:
        raise ValueError(str(error)) from error


# The rules for a signed-note key name (C2SP signed-note): no white space, no plus.
Origin = Annotated[str, StringConstraints(pattern=r"^[^\s+\x00-\x20\x7f]{1,200}$"), AfterValidator(_short)]
Address = Annotated[str, AfterValidator(_address)]


class WitnessAddress(BaseModel):
    """`url`: the witness's submission prefix. `vkey`: its verifier key line."""

    url: str
    vkey: Annotated[str, AfterValidator(_cosigner)]


class AuditSettings(Settings):
    """`checkpoint_origin` names the log for ever: two logs must not share it.

    With `decision_jwks` (path or URL) the views believe only changes whose signed decision verifies. With `log_public`
    anybody may read tiles and bundles, as C2SP tlog-tiles means it; without, auditors only. With `serving_jwks` (path
    or URL, the registry's `GET /v1/keys/serving`) pins can be explained.
    """

    port: int = 8803
    decision_jwks: str | None = None
    serving_jwks: str | None = None
    checkpoint_origin: Origin = "hallmark.example/log/audit"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 5.0
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

    # The Parquet archive by day: how often it is looked after, and whether the day that is not over is written too.
    archive_seconds: Annotated[float, Field(gt=0)] = 300.0
    archive_running_day: bool = False

    # A SIEM that the feed is sent to. Without, it may come and fetch it (GET /v1/siem).
    siem_url: Annotated[str, StringConstraints(pattern=r"^https?://[\x21-\x7e]+$")] | None = None
    siem_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")] = "siem"
    siem_format: Literal["ocsf", "cloudevents", "cef"] = "ocsf"
    siem_authorization: SecretStr | None = None

    # The log's keys (a JWK, and PKCS#8 PEM of ML-DSA-44), or the process that holds them: unix:/path or http://host:port
    # with a token in a file.
    checkpoint_key: Path | None = None
    checkpoint_mldsa_key: Path | None = None
    checkpoint_signer: Address | None = None
    checkpoint_signer_token: Path | None = None
    # Verifier key lines, by commas, of the keys before: what they signed last must be recognised.
    checkpoint_former_keys: Annotated[tuple[Annotated[str, AfterValidator(_log_key)], ...], NoDecode] = ()

    # C2SP tlog-witness: a JSON list of {"url", "vkey"}, and how many must cosign before a checkpoint is published.
    witnesses: Annotated[tuple[WitnessAddress, ...], NoDecode] = ()
    witness_quorum: Annotated[int, Field(ge=0)] = 0
    witness_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    # RFC 3161 time stamps: the authority, its certificates (PEM: root, intermediates), seconds between two stamps.
    tsa_url: str | None = None
    tsa_certificates: Path | None = None
    tsa_every: Annotated[float, Field(gt=0)] = 3600.0
    tsa_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0

    # Hosts, addresses and CIDRs of witnesses and authorities that may be private, and may be reached without TLS.
    attestation_allow: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("attestation_allow", "checkpoint_former_keys", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("witnesses", mode="before")
    @classmethod
    def _json(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.strip() else ()
        except ValueError:
            raise ValueError('must be a JSON list like [{"url": "https://...", "vkey": "..."}]') from None

    @model_validator(mode="after")
    def _together(self) -> "AuditSettings":
        if self.checkpoint_key is None and self.checkpoint_signer is None:
            raise ValueError("HALLMARK_CHECKPOINT_KEY or HALLMARK_CHECKPOINT_SIGNER is needed")
        if self.witness_quorum > len({parse_vkey(w.vkey).name for w in self.witnesses}):
            raise ValueError("HALLMARK_WITNESS_QUORUM is more than HALLMARK_WITNESSES can give")
        if self.tsa_url is not None and self.tsa_certificates is None:
            raise ValueError("HALLMARK_TSA_CERTIFICATES is needed with HALLMARK_TSA_URL")
        return self


class SignerSettings(ProcessSettings):
    """Of `python -m audit sign`, which needs no database and no Kafka.

    `checkpoint_signer`: where it listens. `checkpoint_signer_state`: the file of what it signed last; its directory
    must belong to the signer alone.
    """

    checkpoint_origin: Origin
    checkpoint_key: Path
    checkpoint_mldsa_key: Path | None = None
    checkpoint_signer: Address
    checkpoint_signer_token: Path | None = None
    checkpoint_signer_state: Path

    @model_validator(mode="after")
    def _guarded(self) -> "SignerSettings":
        if self.checkpoint_signer.startswith("https:"):
            raise ValueError("HALLMARK_CHECKPOINT_SIGNER: the signer listens without TLS; put a proxy before it")
        if not self.checkpoint_signer.startswith("unix:") and self.checkpoint_signer_token is None:
            raise ValueError("HALLMARK_CHECKPOINT_SIGNER_TOKEN is needed where anybody could reach the signer")
        return self


def read_token(path: Path | None) -> str | None:
    """The bearer token in a file. Raises ValueError when it cannot be read or is none."""
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the token {path}: {error}") from error
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{path} holds no token: at least 16 visible characters")
    return token
