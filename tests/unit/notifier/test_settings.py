"""Settings from the environment."""

from typing import Any

import pytest
from pydantic import ValidationError

from notifier.settings import NotifierSettings

COMMON: dict[str, Any] = {
    "database_url": "postgresql://x",
    "kafka_bootstrap": "x:1",
    "auth_jwks": "x",
    "access_file": "x",
}


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_RETRY_SECONDS", "0.5, 2,3")
    monkeypatch.setenv("HALLMARK_WEBHOOK_ALLOW", "127.0.0.0/8, hooks.internal,")
    settings = NotifierSettings(**COMMON)
    assert settings.retry_seconds == (0.5, 2.0, 3.0)
    assert settings.webhook_allow == ("127.0.0.0/8", "hooks.internal")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETRY_SECONDS", ""),
        ("RETRY_SECONDS", "5,-1"),
        ("RETRY_SECONDS", "soon"),
        ("LEASE_SECONDS", "10"),
        ("DELIVERY_CONCURRENCY", "0"),
    ],
)
def test_bad_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HALLMARK_{name}", value)
    with pytest.raises(ValidationError) as caught:
        NotifierSettings(**COMMON)
    assert caught.value.errors()[0]["loc"][0] == name.lower()
