"""The four services as child processes: their environment, their `migrate` and their `serve`."""

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from embedded.infra import Infra
from embedded.ports import HOST
from embedded.process import Child, http_ready
from embedded.s3 import BUCKET, EVIDENCE, LOG, REGION

PORTS = {"registry": 8801, "approval": 8802, "audit": 8803, "notifier": 8804}
CONSOLE_PORT = 8800
BUCKETS = {"approval": EVIDENCE, "audit": LOG}  # of their own
VAULT_KEY = "subscriptions.key"  # encrypts the secrets of subscriptions at rest
DATABASE = "hallmark"
PEOPLE = "people"  # the vault of identities: a schema, and a role that every service asks it with
LOG_NAME = "log"  # two logs must not share a name, so that their checkpoints cannot be confused
# Tansu refuses idempotent producers and forgets its topics. A first join to a group takes it half the session
# timeout and at least 1 s (the default would be 5 s), and 5 s more for a static member.
TANSU = {
    "HALLMARK_KAFKA_IDEMPOTENCE": "false",
    "HALLMARK_KAFKA_CREATE_TOPICS": "true",
    "HALLMARK_KAFKA_SESSION_SECONDS": "2",
    "HALLMARK_INSTANCE": "",
}


def environment(
    service: str, infra: Infra, data: Path, ports: dict[str, int], kept: dict[str, str], *, people: bool = False
) -> dict[str, str]:
    """Every setting of one service. What is not about where the servers are may come from our environment.

    `kept`: each service's password, the vault's (PEOPLE), and the name of the audit log (LOG_NAME), as the data
    directory keeps them. `people`: the vault of identities is on.
    """
    keys = data / "keys"
    optional = {
        "HALLMARK_LOG_FORMAT": "console",
        "HALLMARK_MAIL_FROM": "hallmark@localhost",
        "HALLMARK_SMTP_HOST": HOST,
        "HALLMARK_SMTP_PORT": "1025",
        "HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "HALLMARK_GATE_ALLOW": "127.0.0.0/8",
        "HALLMARK_CHECKPOINT_ORIGIN": f"hallmark.local/{kept[LOG_NAME]}",
        "HALLMARK_LOG_PUBLIC": "true",  # to this machine
    }
    fixed = {
        "HALLMARK_DATABASE_URL": database_url(infra, f"hallmark_{service}", kept[service]),
        "HALLMARK_KAFKA_BOOTSTRAP": infra.kafka_bootstrap,
        "HALLMARK_S3_ENDPOINT": infra.s3_endpoint,
        "HALLMARK_S3_ACCESS_KEY": infra.s3_access_key,
        "HALLMARK_S3_SECRET_KEY": infra.s3_secret_key,
        "HALLMARK_S3_BUCKET": BUCKET,
        "HALLMARK_S3_REGION": REGION,
        "HALLMARK_HOST": HOST,
        "HALLMARK_PORT": str(ports[service]),
        "HALLMARK_AUTH_JWKS": str(keys / "auth.jwks.json"),
        "HALLMARK_ACCESS_FILE": str(data / "access.yaml"),
        "HALLMARK_DECISION_KEY": str(keys / "decision.jwk"),
        "HALLMARK_DECISION_JWKS": str(keys / "decision.jwks.json"),
        "HALLMARK_SERVING_KEY": str(keys / "serving.jwk"),
        "HALLMARK_SERVING_JWKS": str(keys / "serving.jwks.json"),
        "HALLMARK_CHECKPOINT_KEY": str(keys / "checkpoint.jwk"),
        "HALLMARK_CHECKPOINT_MLDSA_KEY": str(keys / "checkpoint.mldsa44.pem"),
        "HALLMARK_SECRET_KEY": str(keys / VAULT_KEY),
        "HALLMARK_WEBHOOK_KEY": str(keys / "webhook.jwk"),
        "PYTHONUNBUFFERED": "1",
    }
    if bucket := BUCKETS.get(service):  # it can neither read nor overwrite what lies in another
        fixed |= {
            "HALLMARK_S3_ACCESS_KEY": bucket,
            "HALLMARK_S3_SECRET_KEY": infra.s3_own[bucket],
            "HALLMARK_S3_BUCKET": bucket,
        }
    if people:
        fixed["HALLMARK_PEOPLE_DATABASE_URL"] = database_url(infra, f"hallmark_{PEOPLE}", kept[PEOPLE])
    if infra.kafka_kind == "tansu":
        fixed |= TANSU
    for name, port in {**ports, "console": CONSOLE_PORT}.items():
        fixed[f"HALLMARK_{name.upper()}_URL"] = f"http://{HOST}:{port}"
    return optional | dict(os.environ) | fixed


def database_url(infra: Infra, user: str | None = None, password: str = "") -> str:
    """The product's database, as that role; without one as the superuser."""
    url = urlsplit(infra.postgres_admin_url)
    netloc = f"{user}:{password}@{url.hostname}:{url.port}" if user else url.netloc
    return url._replace(netloc=netloc, path=f"/{DATABASE}").geturl()


def service(name: str, env: dict[str, str], log: Path) -> Child:
    """The service, ready when its /readyz says so."""
    port = int(env["HALLMARK_PORT"])
    return Child(
        name=name,
        command=[sys.executable, "-m", name, "serve"],
        log=log,
        port=port,
        ready=http_ready(f"http://{HOST}:{port}/readyz"),
        env=env,
        grace=15.0,  # it finishes what it has in hand
        ready_timeout=90.0,
    )


def migration(envs: dict[str, dict[str, str]], infra: Infra) -> str:
    """What `python -m embedded.migrate` reads to bring every service's schema up to date."""
    admin = {"HALLMARK_ADMIN_DATABASE_URL": database_url(infra)}
    return json.dumps([[name, env | admin] for name, env in envs.items()])
