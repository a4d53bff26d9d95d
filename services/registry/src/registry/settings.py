"""What the registry needs beside the common settings."""

from pydantic import SecretStr

from kit.settings import Settings


class RegistrySettings(Settings):
    port: int = 8801

    decision_jwks: str
    transition_hours: float = 72.0

    s3_endpoint: str
    s3_public_endpoint: str | None = None
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_bucket: str = "hallmark"
    s3_region: str = "us-east-1"

    registry_url: str = "http://127.0.0.1:8801"
    approval_url: str = "http://127.0.0.1:8802"
    audit_url: str = "http://127.0.0.1:8803"
    notifier_url: str = "http://127.0.0.1:8804"
    console_url: str = "http://127.0.0.1:8800"
