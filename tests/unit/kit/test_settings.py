"""Settings come from `HALLMARK_*` alone, and a mistake is one readable line each."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from kit.settings import Settings

REQUIRED = {
    "HALLMARK_DATABASE_URL": "postgresql://hallmark_x:secret@127.0.0.1/x",
    "HALLMARK_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "HALLMARK_PORT": "8801",
    "HALLMARK_AUTH_JWKS": "keys/auth.jwks.json",
    "HALLMARK_ACCESS_FILE": "access.yaml",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_defaults(environment: pytest.MonkeyPatch) -> None:
    settings = Settings()
    assert settings.kafka_idempotence is True
    assert settings.topic_prefix == ""
    assert settings.host == "127.0.0.1"
    assert settings.auth_issuer == settings.auth_audience == "hallmark"


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_what_is_required(environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.delenv(missing)
    with pytest.raises(ValidationError, match=missing.removeprefix("HALLMARK_").lower()):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HALLMARK_PORT", "http"),
        ("HALLMARK_KAFKA_IDEMPOTENCE", "perhaps"),
        ("HALLMARK_LOG_FORMAT", "xml"),
        ("HALLMARK_LOG_LEVEL", "loud"),
        ("HALLMARK_GRACEFUL_SECONDS", "0"),
        ("HALLMARK_GRACEFUL_SECONDS", "-1"),
        ("HALLMARK_KAFKA_REPLICATION", "0"),
        ("HALLMARK_DATABASE_POOL", "0"),
    ],
)
def test_bad_values_are_refused(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A grace of 0 would mean "do not wait" to FastStream: work in flight would be cut off at every stop."""
    environment.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("HALLMARK_").lower()):
        Settings()


def test_passwords_do_not_show(environment: pytest.MonkeyPatch) -> None:
    assert "secret" not in repr(Settings())


def test_the_command_names_each_mistake_and_ends_with_2() -> None:
    program = "from kit.main import run; from kit.settings import Settings; run('x', Settings, lambda s: None)"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve"],
        env={**REQUIRED, "HALLMARK_PORT": "http"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "HALLMARK_PORT: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
