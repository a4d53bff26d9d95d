"""From pending to ready or rejected: what is in the store decides, once, whoever is stopped meanwhile."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from onnx import TensorProto, helper

from contracts.canonical import canonical_json
from contracts.model import Artifact
from contracts.registry import VersionRejected, VersionVerified
from embedded.fixtures import S3, Kafka, new_bucket
from kit.topics import apply_topics
from registry.artifacts import store_of
from registry.inspection.worker import Inspector
from registry.places import ASIDE, upload_key
from registry.settings import RegistrySettings

from .artifact_support import digest_of, directory, single
from .conftest import Harness, new_settings, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
PICKLE = b"cos\nsystem\n(S'echo owned'\ntR."


async def register(registry: Harness, artifact: Artifact, model: str = "fraud", **content: Any) -> int:
    body = {"artifact": artifact.model_dump(mode="json"), **content}
    response = await registry.ana.post(f"/v1/models/{model}/versions", json=body)
    assert (response.status_code, response.json().get("status")) == (201, "pending"), response.text
    return int(response.json()["version"])


async def upload(registry: Harness, *blobs: bytes) -> None:
    for data in blobs:
        await registry.upload(data)


def own(registry: Harness, text: str) -> bytes:
    """Bytes that no other test has."""
    return f"{registry.workspace} {text}".encode()


@asynccontextmanager
async def busy(registry: Harness, model: str, version: int) -> AsyncIterator[None]:
    """Meanwhile nobody verifies it: as if another replica were at it."""
    connection = await asyncpg.connect(registry.settings.database_url.get_secret_value())
    key = f"registry.verification:{registry.stream(model)}/{version}"
    await connection.execute("select pg_advisory_lock(hashtextextended($1, 0))", key)
    try:
        yield
    finally:
        await connection.close()


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the files that inspectors were given, in order; they work as ever."""
    seen: list[str] = []
    run = Inspector.run

    async def watched(self: Inspector, job: Any) -> Any:
        seen.extend(part.digest for part in job.parts)
        return await run(self, job)

    monkeypatch.setattr(Inspector, "run", watched)
    return seen


async def test_a_directory_becomes_ready(registry: Harness) -> None:
    files = {"a.bin": own(registry, "a"), "sub/b.bin": own(registry, "b"), "sub/same.bin": own(registry, "b")}
    artifact = directory(**files)
    await upload(registry, *files.values())
    version = await registry.verified("fraud", await register(registry, artifact))
    assert (version["status"], version["status_detail"]) == ("ready", None)
    event = (await registry.event(lambda e: e.type == VersionVerified.TYPE)).payload(VersionVerified)
    assert (event.version, event.artifact_digest) == (1, artifact.digest)
    found = (await registry.ana.get("/v1/models/fraud/resolve", params={"version": 1})).json()["files"]
    async with httpx2.AsyncClient() as outside:
        assert {f["path"]: (await outside.get(f["url"])).content for f in found} == files


async def test_a_file_that_went_away_after_registration_is_named(registry: Harness) -> None:
    files = {name: own(registry, name) for name in ("a.bin", "b.bin", "c.bin")}
    await upload(registry, *files.values())
    async with busy(registry, "fraud", 1):
        await register(registry, directory(**files))
        await store_of(registry.settings).delete(upload_key(digest_of(files["b.bin"]), "ana"))
    version = await registry.verified("fraud", 1)
    assert (version["status"], version["status_detail"].split(":")[0]) == ("rejected", "artifact-missing")
    rejected = (await registry.event(lambda e: e.type == VersionRejected.TYPE)).payload(VersionRejected)
    assert (rejected.file, rejected.code) == ("b.bin", "artifact-missing")


async def test_one_bad_file_of_three_is_named_and_can_be_sent_again(registry: Harness) -> None:
    files = {name: own(registry, name) for name in ("a.bin", "b.bin", "c.bin")}
    await upload(registry, *files.values())
    await registry.spoil(digest_of(files["b.bin"]), files["b.bin"].swapcase())
    artifact = directory(**files)
    version = await registry.verified("fraud", await register(registry, artifact))
    assert version["status"] == "rejected"
    rejected = (await registry.event(lambda e: e.type == VersionRejected.TYPE)).payload(VersionRejected)
    assert (rejected.file, rejected.code) == ("b.bin", "artifact-mismatch")
    assert digest_of(files["b.bin"].swapcase()) in rejected.detail
    await upload(registry, *files.values())
    assert (await registry.verified("fraud", await register(registry, artifact)))["status"] == "ready"


async def test_the_same_bytes_are_inspected_once(registry: Harness, examined: list[str]) -> None:
    artifact = single(own(registry, "once"))
    await upload(registry, own(registry, "once"))
    for n in (1, 2):
        assert await register(registry, artifact) == n
        assert (await registry.verified("fraud", n))["status"] == "ready"
    elsewhere = await registry.verified("risk", await register(registry, artifact, "risk"))
    assert elsewhere["inspection"] == (await registry.verified("fraud", 1))["inspection"]
    assert examined == [artifact.digest]


async def test_what_was_found_under_another_name_does_not_count(registry: Harness, examined: list[str]) -> None:
    """What is looked for depends on the name, and findings name the file."""
    pickled = PICKLE + own(registry, "")
    await upload(registry, pickled)
    for name in ("model.txt", "model.pkl"):
        artifact = Artifact(digest=digest_of(pickled), size=len(pickled), filename=name)
        found = await registry.verified("fraud", await register(registry, artifact))
        assert {f["file"] for f in found["inspection"]["findings"]} <= {name}
    assert found["status"] == "quarantined"
    assert examined == [digest_of(pickled)] * 2


async def test_a_file_that_is_a_directorys_manifest_does_not_vouch_for_it(
    registry: Harness, examined: list[str]
) -> None:
    """Both have the same digest. The directory's own files must be looked at all the same."""
    pickled = PICKLE + own(registry, "")
    artifact = directory(**{"model.pkl": pickled})
    manifest = canonical_json([{"path": f.path, "digest": f.digest, "size": f.size} for f in artifact.files])
    assert digest_of(manifest) == artifact.digest
    await upload(registry, manifest, pickled)
    harmless = await registry.verified("fraud", await register(registry, single(manifest)))
    assert harmless["status"] == "ready"
    assert (await registry.verified("fraud", await register(registry, artifact)))["status"] == "quarantined"
    assert examined == [digest_of(manifest), digest_of(pickled)]
    again = await registry.verified("fraud", await register(registry, single(manifest)))
    assert again["inspection"] == harmless["inspection"]


def onnx(name: str) -> bytes:
    value = helper.make_tensor_value_info
    columns = [value(name, TensorProto.FLOAT, ["batch", 4])], [value("y", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "g", *columns)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


async def test_onnx_says_its_schema_and_contradicts_a_false_one(registry: Harness) -> None:
    data = onnx(registry.workspace)
    artifact = Artifact(digest=digest_of(data), size=len(data), filename="model.onnx")
    await upload(registry, data)
    found = await registry.verified("fraud", await register(registry, artifact))
    assert (found["status"], found["inspection"]["format"]) == ("ready", "onnx")
    [given] = found["inspection"]["signature"]["inputs"]
    assert given == {"name": registry.workspace, "dtype": "float32", "shape": [None, 4]}
    assert found["content"]["signature"]["inputs"] == [], "law 4: what was registered stays as it was"
    for declared, status in (
        ({**given, "dtype": "int64"}, "rejected"),
        ({**given, "name": "x"}, "rejected"),
        (given, "ready"),
    ):
        # The bytes are known by now: the schema is compared all the same.
        number = await register(registry, artifact, signature={"inputs": [declared]})
        version = await registry.verified("fraud", number)
        assert version["status"] == status, (declared, version["status_detail"])
        assert status == "ready" or version["status_detail"].startswith("signature-contradiction: ")


# -- services of their own ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def allowed(infra_s3: S3) -> Iterator[str]:
    with new_bucket(infra_s3) as bucket:
        yield bucket


@pytest.fixture(scope="module")
def alone(infra_postgres: str, infra_s3: S3, kafka: Kafka, scratch: Path, allowed: str) -> Iterator[RegistrySettings]:
    """A database where nothing runs but what the test starts."""
    with new_settings(infra_postgres, infra_s3, kafka, scratch) as settings:
        asyncio.run(apply_topics(settings.kafka_bootstrap, prefix=settings.topic_prefix))
        yield settings.model_copy(update={"reference_buckets": (allowed,)})


def named(harness: Harness) -> Harness:
    return replace(harness, workspace=f"w{uuid4().hex[:8]}")


async def test_a_verification_that_was_cut_off_is_finished_after_the_restart(
    alone: RegistrySettings, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, run = asyncio.Event(), Inspector.run

    async def stuck(self: Inspector, job: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Inspector, "run", stuck)
    async with running(alone, scratch) as harness:
        first = named(harness)
        files = {"a.bin": own(first, "a"), "b.bin": own(first, "b")}
        await upload(first, *files.values())
        await register(first, directory(**files))
        await asyncio.wait_for(begun.wait(), 20)
        assert (await first.ana.get("/v1/models/fraud/versions/1")).json()["status"] == "pending"
    monkeypatch.setattr(Inspector, "run", run)
    async with running(alone, scratch) as harness:
        second = replace(harness, workspace=first.workspace)
        assert (await second.verified("fraud", 1))["status"] == "ready"
        await second.event(lambda e: e.type == VersionVerified.TYPE)
        assert sum(e.type == VersionVerified.TYPE for e in second.heard) == 1
        assert [o.key async for o in store_of(alone).objects(ASIDE)] == [], "copies are cleared away"


async def test_two_replicas_do_not_verify_twice(alone: RegistrySettings, scratch: Path, examined: list[str]) -> None:
    async with running(alone, scratch) as one, running(alone, scratch) as other:
        replicas = [named(one)]
        replicas.append(replace(other, workspace=replicas[0].workspace))
        blobs = [own(replicas[0], f"{n}") for n in range(8)]
        await upload(replicas[0], *blobs)
        numbers = await asyncio.gather(
            *(register(replicas[n % 2], single(data), f"m{n}") for n, data in enumerate(blobs))
        )
        assert numbers == [1] * len(blobs)
        for n in range(len(blobs)):
            assert (await replicas[n % 2].verified(f"m{n}", 1))["status"] == "ready"
    assert sorted(examined) == sorted(map(digest_of, blobs))


async def test_a_reference_is_verified_as_an_upload_is(
    alone: RegistrySettings, scratch: Path, allowed: str, infra_s3: S3
) -> None:
    async with running(alone, scratch) as harness:
        registry, store = named(harness), store_of(alone)

        async def put(bucket: str, key: str, data: bytes) -> str:
            await store._call(lambda c: c.put_object(bucket, key, io.BytesIO(data), len(data)))
            return f"s3://{bucket}/{key}"

        async def refused(artifact: Artifact) -> str:
            body = {"artifact": artifact.model_dump(mode="json")}
            response = await registry.ana.post("/v1/models/fraud/versions", json=body)
            assert response.status_code == 422, response.text
            return str(response.json()["type"]).rsplit(":", 1)[-1]

        good = own(registry, "good")
        source = await put(allowed, "their/model.bin", good)
        version = await registry.verified("fraud", await register(registry, single(good, source)))
        assert version["status"] == "ready"
        # What they do to their object later changes nothing: the registry has a copy.
        await put(allowed, "their/model.bin", good.swapcase())
        found = (await registry.ana.get("/v1/models/fraud/resolve", params={"version": 1})).json()
        async with httpx2.AsyncClient() as outside:
            assert (await outside.get(found["download_url"])).content == good

        lying = single(own(registry, "fine"), await put(allowed, "lying.bin", own(registry, "evil")))
        version = await registry.verified("fraud", await register(registry, lying))
        assert (version["status"], version["status_detail"].split(":")[0]) == ("rejected", "artifact-mismatch")

        with new_bucket(infra_s3) as forbidden:
            for bucket in (forbidden, alone.s3_bucket):
                there = await put(bucket, "secret.bin", good)
                assert await refused(single(good, there)) == "reference-not-allowed"
        assert await refused(single(own(registry, "no"), f"s3://{allowed}/nowhere.bin")) == "artifact-missing"
        assert await refused(single(good[:-1], source)) == "artifact-mismatch"
        assert (await registry.ana.get("/v1/models/fraud")).json()["versions"] == 2
