"""The three servers: a second start finds everything again; killed with -9 they come back where they were."""

import asyncio
import io
import os
import signal
import urllib.error
import urllib.request
from collections import defaultdict
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition
from minio.commonconfig import CopySource
from minio.error import S3Error
from tests.support.waiting import until_now

from embedded import Infra, jars, s3, services, start_infra
from embedded.infra import prepare_infra
from embedded.kafka import Choice
from kit.blobs import BlobStore

TOPIC = "records"
KINDS = [
    "tansu",
    pytest.param("apache", marks=pytest.mark.skipif(bool(jars.missing()), reason=f"no Apache Kafka: {jars.missing()}")),
]


async def write(infra: Infra) -> None:
    """One row, one object, one record."""
    connection = await asyncpg.connect(infra.postgres_admin_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (what text)")
    await connection.execute("INSERT INTO kept VALUES ('row')")
    await connection.close()
    store = s3.client(infra.s3_endpoint, infra.s3_access_key, infra.s3_secret_key)
    store.put_object(s3.BUCKET, "kept", io.BytesIO(b"object"), 6)
    admin = AIOKafkaAdminClient(bootstrap_servers=infra.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=infra.kafka_bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, b"record")


async def rows(infra: Infra) -> list[str]:
    connection = await asyncpg.connect(infra.postgres_admin_url)
    try:
        return [row["what"] for row in await connection.fetch("SELECT what FROM kept")]
    finally:
        await connection.close()


def object_(infra: Infra) -> bytes:
    store = s3.client(infra.s3_endpoint, infra.s3_access_key, infra.s3_secret_key)
    return store.get_object(s3.BUCKET, "kept").read()


async def topics(infra: Infra) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=infra.kafka_bootstrap)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def record(infra: Infra) -> bytes | None:
    async with AIOKafkaConsumer(bootstrap_servers=infra.kafka_bootstrap) as consumer:
        consumer.assign([TopicPartition(TOPIC, 0)])
        await consumer.seek_to_beginning()
        value: bytes | None = (await consumer.getone()).value
        return value


async def assert_kept(infra: Infra) -> None:
    assert await rows(infra) == ["row"]
    assert object_(infra) == b"object"
    if infra.kafka_kind == "apache":
        assert await record(infra) == b"record"
    else:
        assert TOPIC not in await topics(infra)  # Tansu forgets; the product must bear that


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
async def test_data_survives_a_restart_and_a_kill(kind: Choice, server_dir: Path) -> None:
    with start_infra(server_dir, kind) as first:
        assert first.infra.kafka_kind == kind
        await write(first.infra)
    assert not any(child.alive() for child in first.children())
    with start_infra(server_dir, kind) as second:
        assert second.infra == first.infra  # the same ports and passwords
        await assert_kept(second.infra)
        for child in second.children():
            before = child.pid
            child.kill()
            assert not child.alive()
            child.start()
            assert child.pid != before
        await assert_kept(second.infra)


async def test_postgres_starts_over_what_a_killed_one_left(server_dir: Path) -> None:
    with start_infra(server_dir, "tansu", fsync=False) as running:
        assert running.postgres.pid is not None
        await write(running.infra)
        os.kill(running.postgres.pid, signal.SIGKILL)  # only the postmaster: its backends are still going
        until_now(lambda: not running.postgres.alive())
        pid_file = server_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # its pid was given to somebody else
        running.postgres.start()
        assert await rows(running.infra) == ["row"]


def test_nothing_is_left_running_when_one_server_cannot_start(server_dir: Path) -> None:
    (server_dir / "s3").write_text("a file where its directory should be")
    with pytest.raises(OSError, match="s3"):
        start_infra(server_dir, "tansu", fsync=False)
    assert [p for p in psutil.process_iter(["cmdline"]) if str(server_dir) in " ".join(p.info["cmdline"] or [])] == []


async def test_the_password_is_asked_for(server_dir: Path) -> None:
    with start_infra(server_dir, "tansu", fsync=False) as running:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(running.infra.postgres_admin_url.replace("postgres:", "postgres:not"))
        assert (server_dir / "secrets.json").stat().st_mode & 0o077 == 0
        assert (server_dir / "s3.json").stat().st_mode & 0o077 == 0


def test_the_store_signs_urls_and_copies_by_itself(server_dir: Path) -> None:
    with start_infra(server_dir, "tansu", fsync=False) as running:
        infra = running.infra
        store = s3.client(infra.s3_endpoint, infra.s3_access_key, infra.s3_secret_key)
        minute = timedelta(minutes=1)
        put = urllib.request.Request(
            store.presigned_put_object(s3.BUCKET, "in", minute), data=b"bytes" * 100_000, method="PUT"
        )
        with urllib.request.urlopen(put) as answer:
            assert answer.status == 200
        store.copy_object(s3.BUCKET, "out", CopySource(s3.BUCKET, "in"))
        with urllib.request.urlopen(store.presigned_get_object(s3.BUCKET, "out", minute)) as answer:
            assert answer.read() == b"bytes" * 100_000
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{infra.s3_endpoint}/{s3.BUCKET}/out")


async def test_the_key_of_evidence_opens_its_own_bucket_and_no_artifact(server_dir: Path) -> None:
    running = prepare_infra(server_dir, "tansu", fsync=False)
    with running:
        running.s3.start()
        infra = running.infra
        settings = services.environment("approval", infra, server_dir, services.PORTS, defaultdict(str))
        registry = services.environment("registry", infra, server_dir, services.PORTS, defaultdict(str))
        assert registry["HALLMARK_S3_BUCKET"] == s3.BUCKET
        names = ("endpoint", "access_key", "secret_key", "bucket", "region")
        given = {name: settings[f"HALLMARK_S3_{name.upper()}"] for name in names}
        own = BlobStore(public_endpoint=given["endpoint"], **given)
        await own.ensure_bucket()
        url, headers = own.presign_put("a", 1, f"sha256:{sha256(b'1').hexdigest()}")
        request = urllib.request.Request(url, data=b"1", headers=headers, method="PUT")
        assert await asyncio.to_thread(lambda: urllib.request.urlopen(request).status) == 200
        await own.copy("a", "b")
        assert [stored.key async for stored in own.objects("")] == ["a", "b"]
        artifacts = s3.client(infra.s3_endpoint, given["access_key"], given["secret_key"])
        for act in (
            lambda: artifacts.put_object(s3.BUCKET, "blobs/x", io.BytesIO(b"1"), 1),
            lambda: artifacts.get_object(s3.BUCKET, "blobs/x"),
            lambda: artifacts.remove_object(s3.BUCKET, "blobs/x"),
            lambda: list(artifacts.list_objects(s3.BUCKET)),
            lambda: artifacts.copy_object(s3.BUCKET, "blobs/x", CopySource(given["bucket"], "a")),
            lambda: artifacts.copy_object(given["bucket"], "x", CopySource(s3.BUCKET, "blobs/x")),
            lambda: artifacts.make_bucket("another"),
        ):
            with pytest.raises(S3Error, match="AccessDenied"):
                act()
        await own.delete("a", "b")


def test_only_this_machine_can_reach_the_servers(server_dir: Path) -> None:
    with start_infra(server_dir, "tansu", fsync=False) as running:
        for child in running.children():
            assert child.pid is not None
            listening = [c for c in psutil.Process(child.pid).net_connections("tcp") if c.status == "LISTEN"]
            assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
