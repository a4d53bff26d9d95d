"""The whole service, from start to stop: it waits for evidence, asks a check, and decides."""

from pathlib import Path
from uuid import uuid4

import httpx2
from tests.integration.approval.checks import SECRETS, policy, webhook
from tests.integration.approval.conftest import make_settings, running, service_url
from tests.integration.approval.exhibits import attach, file_of, stored, upload
from tests.support.receiver import Receiver

from contracts.approval import EvidenceAttached, GateAnswered
from contracts.lifecycle import Stage
from embedded.fixtures import S3, Kafka
from kit.topics import apply_topics


async def test_evidence_and_checks_in_the_running_service(
    database: str, infra_s3: S3, kafka: Kafka, check: Receiver, tmp_path: Path
) -> None:
    prefix = f"t{uuid4().hex[:8]}."
    await apply_topics(kafka.bootstrap, prefix=prefix)
    with stored(infra_s3) as store:
        settings = make_settings(
            service_url(database),
            tmp_path,
            kafka_bootstrap=kafka.bootstrap,
            kafka_idempotence=kafka.idempotence,
            topic_prefix=prefix,
            gate_secrets=SECRETS,
            gate_allow="127.0.0.1",
            **store,
        )
        async with running(settings) as service:
            await service.publish_policy(policy(webhook(check.url), request="evidence: [model_card]"))
            await service.registry.register("m", accuracy=0.95)
            asked = await service.registry.request("m", from_=Stage.DEVELOPMENT, to=Stage.STAGING)
            opened = await service.opened(asked)
            assert (opened["status"], opened["phase"]) == ("open", "gates")
            assert "evidence is missing: model_card" in opened["waits_for"]
            await upload(service.ana, b"# Card")
            attached = await attach(service.ana, **file_of(b"# Card"))
            assert attached.status_code == 201, attached.text
            assert (await service.decided(asked))["status"] == "approved"
            redirect = await service.ana.get(attached.json()["file"])
            async with httpx2.AsyncClient() as outside:
                assert (await outside.get(redirect.headers["location"])).content == b"# Card"
            for kind in (EvidenceAttached, GateAnswered):
                await service.event(lambda envelope, kind=kind: envelope.type == kind.TYPE)  # type: ignore[misc]
