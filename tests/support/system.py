"""The whole system and its people: the embedded stack, or one that runs already (HALLMARK_E2E_*)."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from embedded import jars
from embedded.demo.receivers import Receivers
from embedded.ports import free_port
from embedded.stack import Options, Stack
from hallmark import Client
from hallmark.publish import Publisher
from kit.keys import load_key, make_token

EXTERNAL = os.environ.get("HALLMARK_E2E_URL")
SERVICES = ("registry", "approval", "audit", "notifier")


@dataclass
class System:
    """The running system and its people, in one workspace."""

    url: str
    auth_key: Path
    bootstrap: str
    receivers: Receivers
    mailbox: str | None = None
    stack: Stack | None = None
    workspace: str = field(default_factory=lambda: f"w{uuid4().hex[:8]}")

    def token(self, subject: str, *groups: str, kind: str = "person", ttl: int = 3600, email: str | None = None) -> str:
        return make_token(load_key(self.auth_key), subject, list(groups), kind=kind, ttl_seconds=ttl, email=email)

    def client(self, subject: str, *groups: str, kind: str = "person", email: str | None = None) -> Client:
        token = self.token(subject, *groups, kind=kind, email=email)
        return Client(self.url, token, workspace=self.workspace, retry_for=60)

    @property
    def ana(self) -> Client:
        return self.client("ana", "ml-engineers")

    @property
    def ben(self) -> Client:
        return self.client("ben", "reviewers")

    @property
    def olga(self) -> Client:
        return self.client("olga", "operators")

    @property
    def aud(self) -> Client:
        return self.client("aud", "auditors")

    def publisher(self) -> Publisher:
        token = self.token("trainer", "ml-engineers", kind="service")
        return Publisher(self.bootstrap, token, source="test/trainer")

    def mails(self) -> list[str]:
        """Subjects of the mails that arrived for this workspace's address."""
        address = f"{self.workspace}@example.org"
        if self.mailbox is None:
            return [str(m["subject"]) for m in self.receivers.inbox.mails if address in str(m["to"])]
        found = httpx2.get(f"{self.mailbox}/api/v1/messages", params={"limit": 500}).json()["messages"]
        return [m["Subject"] for m in found if any(to["Address"] == address for to in m["To"])]


def kinds() -> list[str]:
    return ["compose"] if EXTERNAL else ["tansu", "apache"]


def embedded_system(
    kind: str, held: ExitStack, *, people: bool = False, settings: Mapping[str, str] | None = None
) -> System:
    """A stack of its own, stopped and removed with `held`; `people`: with the vault of identities."""
    if kind == "apache" and (why := jars.missing()) is not None:
        pytest.skip(f"Apache Kafka cannot run here: {why}")
    # Not under pytest's directory: each new run of pytest shuts that to PostgreSQL's user again.
    data = Path(tempfile.mkdtemp(prefix="hallmark-e2e-"))
    held.callback(shutil.rmtree, data, ignore_errors=True)
    smtp = free_port()
    env = {
        "HALLMARK_SMTP_PORT": str(smtp),
        "HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "HALLMARK_RETRY_SECONDS": "0.5,1,2,4,8,16",
        "HALLMARK_SEND_TIMEOUT_SECONDS": "4",
        "HALLMARK_LEASE_SECONDS": "5",
    }
    receivers = held.enter_context(Receivers(smtp))
    ports = {name: free_port() for name in SERVICES}
    stack = held.enter_context(
        Stack(
            Options(data, kafka=kind, ports=ports, env=env | dict(settings or {}), fsync=False, people=people)  # type: ignore[arg-type]
        )
    )
    assert stack.infra is not None
    return System(
        url=stack.urls["registry"],
        auth_key=stack.data / "keys" / "auth.jwk",
        bootstrap=stack.infra.infra.kafka_bootstrap,
        receivers=receivers,
        stack=stack,
    )


def external_system(held: ExitStack) -> System:
    receivers = held.enter_context(Receivers(free_port(), bind="0.0.0.0", name=os.environ["HALLMARK_E2E_HOST"]))
    return System(
        url=os.environ["HALLMARK_E2E_URL"],
        auth_key=Path(os.environ["HALLMARK_E2E_AUTH_KEY"]),
        bootstrap=os.environ["HALLMARK_E2E_KAFKA"],
        receivers=receivers,
        mailbox=os.environ["HALLMARK_E2E_MAIL"],
    )


def to_production(system: System, version: int) -> None:
    """Staging by policy alone, Production with ben's approval."""
    assert system.ana.request_stage("churn", version, "Staging", "evaluated", wait=60).applied
    transition = system.ana.request_stage("churn", version, "Production", "ready", wait=0)
    system.ben.request(transition.transition_id, wait=60)
    system.ben.approve(transition.transition_id, "reviewed")
    closed = system.ana.transition(transition.transition_id, wait=60)
    assert closed.applied, closed
