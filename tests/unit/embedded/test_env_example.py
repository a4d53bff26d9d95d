"""`.env.example` names what docker-compose.yml reads, with the defaults it has there."""

import re
from pathlib import Path

import pytest
import yaml

from notifier.settings import NotifierSettings

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
SET = set(re.findall(r"^([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def passed_on() -> set[str]:
    """Names without a value: they reach the container only where they are set."""
    services = yaml.safe_load(COMPOSE)["services"].values()
    return {name for s in services for name, value in (s.get("environment") or {}).items() if value is None}


def defaults() -> dict[str, str]:
    """Name -> default, those inside another default filled in."""
    text, found = COMPOSE, dict[str, str]()
    while inner := re.findall(r"\$\{([A-Z0-9_]+):-([^${}]*)\}", text):
        for name, value in inner:
            assert found.setdefault(name, value) == value, f"{name} has two defaults"
        text = re.sub(r"\$\{[A-Z0-9_]+:-([^${}]*)\}", r"\1", text)
    return found


def test_the_names_are_those_of_the_compose_file() -> None:
    assert set(EXAMPLE) == set(defaults()) | passed_on()


@pytest.mark.parametrize("name", sorted(set(EXAMPLE) - SET - passed_on()))
def test_what_is_commented_out_is_the_default(name: str) -> None:
    assert EXAMPLE[name] == defaults()[name]


def test_the_notifiers_own_defaults_are_told() -> None:
    fields = NotifierSettings.model_fields
    assert EXAMPLE["HALLMARK_SMTP_TLS"] == str(fields["smtp_tls"].default).lower()
    assert EXAMPLE["HALLMARK_RETRY_SECONDS"] == ",".join(str(pause) for pause in fields["retry_seconds"].default)
