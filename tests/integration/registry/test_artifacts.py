"""Uploads, references, verification's copies and downloads, on a real store and database."""

import io
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tests.integration.registry.artifact_support import (
    MIB,
    OTHER_BUCKETS,
    World,
    digest_of,
    directory,
    registry_database,
    single,
    store_on,
)

from embedded import s3
from embedded.fixtures import S3
from kit import blobs
from kit.db import Database
from kit.problems import Problem
from registry import offers
from registry.artifacts import Artifacts
from registry.places import blob_key, upload_key


@pytest.fixture(scope="module")
def database_url(infra_postgres: str) -> Iterator[str]:
    with registry_database(infra_postgres) as url:
        yield url


@pytest_asyncio.fixture
async def world(database_url: str, infra_s3: S3, bucket: str) -> AsyncIterator[World]:
    db = Database(database_url, name="test", pool=4)
    store = store_on(infra_s3, bucket)
    world = World(db, store, Artifacts(db, store, OTHER_BUCKETS))
    yield world
    await db.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipart from 6 MiB on, in parts of 5 MiB, the least that S3 takes."""
    monkeypatch.setattr(offers, "SINGLE_MAX", 6 * MIB)
    monkeypatch.setattr(offers, "PART_SIZE", 5 * MIB)


@pytest.fixture
def data() -> bytes:
    return os.urandom(2_000)


# -- offers ------------------------------------------------------------------------------------------------------


async def test_only_what_is_missing_is_asked_for(world: World, data: bytes) -> None:
    await world.ready(data)
    new = os.urandom(100)
    known, wanted = await world.artifacts.offer([(digest_of(data), len(data)), (digest_of(new), 100)], "ben")
    assert (known.state, known.url) == ("present", None)
    assert wanted.state == "single"
    assert wanted.headers["content-length"] == "100"
    await world.upload(new, owner="ben")
    assert (await world.offer(new, "ben")).state == "present"


async def test_a_digest_asked_for_twice_is_offered_once(world: World, data: bytes) -> None:
    offered = await world.artifacts.offer([(digest_of(data), len(data))] * 2, "ana")
    assert len(offered) == 1


async def test_a_digest_has_one_size(world: World, data: bytes) -> None:
    await world.ready(data)
    for files in ([(digest_of(data), 1)], [(digest_of(b"new"), 3), (digest_of(b"new"), 4)]):
        with pytest.raises(Problem) as caught:
            await world.artifacts.offer(files, "ana")
        assert (caught.value.status, caught.value.code) == (422, "artifact-mismatch")
    artifact = single(data).model_copy(update={"size": 1})
    with pytest.raises(Problem, match="declared with 1 bytes"):
        await world.missing(artifact)


@pytest.mark.parametrize(
    ("size", "each"), [(64 * MIB + 1, 32 * MIB), (312 << 30, 32 * MIB), (5 << 40, 525 * MIB), (320 << 30, 33 * MIB)]
)
def test_no_upload_has_more_than_ten_thousand_parts(size: int, each: int) -> None:
    assert offers.part_size(size) == each
    assert -(-size // each) <= 10_000


async def test_multipart_begins_above_64_mib(world: World) -> None:
    first, second = await world.artifacts.offer([(digest_of(b"1"), 64 * MIB), (digest_of(b"2"), 64 * MIB + 1)], "ana")
    assert (first.state, second.state) == ("single", "multipart")
    assert [part.size for part in second.parts] == [32 * MIB, 32 * MIB, 1]


async def test_thousands_of_parts_come_in_several_offers(world: World) -> None:
    files = [(digest_of(bytes([n])), 1 << 40) for n in range(2)]
    for offer in await world.artifacts.offer(files, "ana"):
        assert len(offer.parts) == 250
        assert offer.part_size == 105 * MIB


@pytest.mark.usefixtures("small_parts")
async def test_an_interrupted_upload_is_resumed(world: World) -> None:
    data = os.urandom(16 * MIB)
    first = await world.offer(data)
    await world.send(first, data, [1, 3])
    second = await world.offer(data)
    assert (second.upload_id, second.stored) == (first.upload_id, (1, 3))
    assert [part.number for part in second.parts] == [2, 4]
    assert first.upload_id
    with pytest.raises(Problem) as caught:
        await world.artifacts.complete(digest_of(data), len(data), first.upload_id, "ana")
    assert (caught.value.status, caught.value.code) == (409, "parts-missing")
    assert caught.value.extra["parts"] == [2, 4]
    await world.send(second, data)
    for _ in range(2):
        await world.artifacts.complete(digest_of(data), len(data), first.upload_id, "ana")
    assert (await world.offer(data)).state == "present"
    assert await world.store.unfinished("") == []
    artifact = single(data)
    await world.verify(artifact, await world.register(artifact))
    assert httpx2.get(world.artifacts.download_url(artifact.digest)).content == data


@pytest.mark.usefixtures("small_parts")
async def test_a_part_of_another_size_is_asked_for_again(world: World, infra_s3: S3) -> None:
    data = os.urandom(12 * MIB)
    offer = await world.offer(data)
    raw = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    key = upload_key(offer.digest, "ana")
    raw._upload_part(world.store.bucket, key, data[: 5 * MIB - 1], None, offer.upload_id or "", 1)
    again = await world.offer(data)
    assert (again.upload_id, again.stored) == (offer.upload_id, ())
    assert [part.number for part in again.parts] == [1, 2, 3]


@pytest.mark.usefixtures("small_parts")
async def test_two_clients_with_the_same_bytes_do_not_hurt_each_other(world: World) -> None:
    data = os.urandom(8 * MIB)
    # The same person twice shares an upload; another person has one of their own.
    ana, twin, ben = await world.offer(data), await world.offer(data), await world.offer(data, "ben")
    assert ana.upload_id == twin.upload_id != ben.upload_id
    await world.send(ana, data)
    await world.send(twin, data, [1])
    await world.artifacts.complete(ana.digest, ana.size, ana.upload_id or "", "ana")
    await world.artifacts.complete(ana.digest, ana.size, twin.upload_id or "", "ana")
    await world.send(ben, data)
    await world.artifacts.complete(ana.digest, ana.size, ben.upload_id or "", "ben")
    assert await world.keys() == {upload_key(ana.digest, "ana"), upload_key(ana.digest, "ben")}


async def test_an_upload_that_is_gone_says_so(world: World) -> None:
    with pytest.raises(Problem) as caught:
        await world.artifacts.complete(digest_of(b"x"), 100 * MIB, "0" * 32, "ana")
    assert (caught.value.status, caught.value.code) == (409, "upload-gone")


# -- registering and verifying -----------------------------------------------------------------------------------


async def test_the_files_that_are_missing_are_named(world: World, data: bytes) -> None:
    await world.ready(data)
    uploaded = os.urandom(50)
    await world.upload(uploaded)
    artifact = directory(a=data, b=uploaded, c=os.urandom(9), d=os.urandom(9))
    assert await world.missing(artifact, "ana") == ["c", "d"]
    with pytest.raises(Problem) as caught:
        await world.register(artifact)
    assert caught.value.code == "artifact-missing"
    assert caught.value.extra["files"] == ["c", "d"]
    await world.upload(b"")
    assert await world.missing(directory(empty=b"", a=data), "ana") == []


async def test_to_know_a_digest_is_not_to_have_the_bytes(world: World, infra_s3: S3, data: bytes) -> None:
    """Digests stand in every event; the bytes behind them belong to who may read a version that holds them."""
    await world.upload(data, owner="ana")
    stranger: dict[str, Any] = {"readable": lambda workspace, model: False}
    assert await world.missing(single(data), "mallory", **stranger) == ["model.bin"], "another's upload"
    await world.ready(data)
    assert await world.missing(single(data), "mallory", **stranger) == ["model.bin"], "another's blob"
    [offer] = await world.artifacts.offer([(digest_of(data), len(data))], "mallory", lambda workspace, model: False)
    assert offer.state == "single"
    lie = single(data).model_copy(update={"size": len(data) + 1})
    assert await world.missing(lie, "mallory", **stranger) == ["model.bin"], "nor is the size told"
    [offer] = await world.artifacts.offer([(digest_of(data), len(data))], "ben", lambda workspace, model: True)
    assert offer.state == "present"
    # Who brings the bytes may register them; they are stored once all the same.
    overwrite(infra_s3, world, upload_key(digest_of(data), "mallory"), data)
    assert await world.missing(single(data), "mallory", **stranger) == []


@pytest.mark.parametrize(
    ("place", "workspace", "good"),
    [
        ("{bucket}", "risk", True),
        ("{bucket}/team/", "risk", True),
        ("{bucket}/other/", "risk", False),
        ("risk:{bucket}/team/", "risk", True),
        ("risk:{bucket}/team/", "cards", False),
    ],
)
async def test_a_reference_place_may_be_one_workspaces(
    world: World, others: str, infra_s3: S3, data: bytes, place: str, workspace: str, good: bool
) -> None:
    overwrite(infra_s3, world, "team/x", data, others)
    artifacts = Artifacts(world.db, world.store, (place.format(bucket=others),))
    wanted = single(data, f"s3://{others}/team/x")
    async with world.db.transaction() as tx:
        if good:
            await artifacts.claim(tx, wanted, workspace=workspace)
        else:
            with pytest.raises(Problem, match="may not refer"):
                await artifacts.claim(tx, wanted, workspace=workspace)


async def test_bytes_can_be_registered_at_every_step_of_their_verification(world: World, data: bytes) -> None:
    """A person may name only what was brought or may be read: at no moment are the bytes neither of them."""
    artifact = single(data)
    mine: dict[str, Any] = {"readable": lambda workspace, model: True}
    await world.upload(data)
    version = await world.register(artifact)
    asides = await world.keep(artifact)
    assert await world.missing(artifact, **mine) == []
    await world.is_verified(artifact, version)
    assert await world.missing(artifact, **mine) == []
    for aside in asides:
        await world.artifacts.release(aside)
    assert await world.missing(artifact, **mine) == []


async def test_a_verification_that_ends_while_a_registration_looks(
    world: World, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = single(data)
    await world.upload(data)
    version = await world.register(artifact)
    has = world.store.has

    async def late(key: str, size: int) -> bool:
        monkeypatch.setattr(world.store, "has", has)
        await world.verify(artifact, version)
        return await has(key, size)

    monkeypatch.setattr(world.store, "has", late)
    assert await world.missing(artifact, readable=lambda workspace, model: True) == []
    assert await world.keys() == {blob_key(artifact.digest)}


async def test_bytes_are_stored_once_and_leave_nothing_behind(world: World, data: bytes) -> None:
    first = await world.ready(data)
    more = os.urandom(10)
    second = await world.ready(data, more)
    assert await world.keys() == {blob_key(first.digest), blob_key(digest_of(more))}
    assert {d.path: httpx2.get(d.url).content for d in world.artifacts.downloads(second)} == {"f0": data, "f1": more}


async def test_nobody_can_change_what_is_being_verified(world: World, data: bytes, infra_s3: S3) -> None:
    await world.upload(data)
    part = single(data).parts()[0]
    aside = await world.artifacts.set_aside(part, "ana")
    overwrite(infra_s3, world, upload_key(part.digest, "ana"), os.urandom(len(data)))
    assert httpx2.get(world.artifacts.url(aside)).content == data
    await world.artifacts.keep(aside, part.digest)
    assert httpx2.get(world.artifacts.download_url(part.digest)).content == data


async def test_nobody_can_spoil_the_upload_of_another(world: World, data: bytes, infra_s3: S3) -> None:
    digest, junk = digest_of(data), os.urandom(len(data))
    overwrite(infra_s3, world, upload_key(digest, "mallory"), junk)
    assert (await world.offer(data)).state == "single"
    await world.upload(data)
    overwrite(infra_s3, world, upload_key(digest, "mallory"), junk)
    aside = await world.artifacts.set_aside(single(data).parts()[0], "ana")
    assert httpx2.get(world.artifacts.url(aside)).content == data


async def test_refused_bytes_can_be_sent_again(world: World, data: bytes, infra_s3: S3) -> None:
    part = single(data).parts()[0]
    overwrite(infra_s3, world, upload_key(part.digest, "ana"), os.urandom(len(data)))
    assert (await world.offer(data)).state == "present"
    await world.artifacts.refuse(await world.artifacts.set_aside(part, "ana"))
    assert await world.keys() == set()
    assert (await world.offer(data)).state == "single"


async def test_a_blob_is_never_written_twice(world: World, data: bytes) -> None:
    artifact = await world.ready(data)
    before = await world.store.stat(blob_key(artifact.digest))
    aside = await world.artifacts.set_aside(artifact.parts()[0], "ana")  # the upload is gone: of the blob
    await world.artifacts.keep(aside, artifact.digest)
    await world.artifacts.discard(aside)
    assert await world.store.stat(blob_key(artifact.digest)) == before
    assert await world.keys() == {blob_key(artifact.digest)}


async def test_what_is_not_there_cannot_be_set_aside(world: World, data: bytes) -> None:
    with pytest.raises(Problem) as caught:
        await world.artifacts.set_aside(single(data).parts()[0], "ana")
    assert (caught.value.code, caught.value.extra["file"]) == ("artifact-missing", "model.bin")


async def test_the_inspector_reads_inside_and_people_outside(world: World, infra_s3: S3, data: bytes) -> None:
    store = store_on(infra_s3, world.store.bucket, "https://models.example")
    artifacts = Artifacts(world.db, store)
    await world.upload(data)
    aside = await artifacts.set_aside(single(data).parts()[0], "ana")
    assert httpx2.get(artifacts.url(aside)).content == data
    (download,) = artifacts.downloads(single(data))
    assert download.url.startswith("https://models.example/")
    assert "model.bin" in download.url


# -- references --------------------------------------------------------------------------------------------------


@pytest.fixture
def others(infra_s3: S3) -> Iterator[str]:
    """The bucket that references may lead to."""
    client = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    (name,) = OTHER_BUCKETS
    if not client.bucket_exists(name):
        client.make_bucket(name)
    yield name
    client.remove_bucket(name)


async def test_an_object_elsewhere_is_registered_by_its_address(
    world: World, others: str, infra_s3: S3, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "COPY_PART", 6 * MIB)
    data = os.urandom(7 * MIB)
    overwrite(infra_s3, world, "runs/1/mö del.onnx", data, others)
    artifact = single(data, f"s3://{others}/runs/1/mö del.onnx")
    await world.verify(artifact, await world.register(artifact))
    assert await world.keys() == {blob_key(artifact.digest)}
    assert httpx2.get(world.artifacts.download_url(artifact.digest)).content == data
    raw = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    assert raw.stat_object(others, "runs/1/mö del.onnx").size == len(data)  # ours to read, not to tidy up


async def test_a_reference_must_lead_somewhere(world: World, others: str, infra_s3: S3, data: bytes) -> None:
    missing = single(data, f"s3://{others}/nothing")
    assert await world.missing(missing) == ["model.bin"]
    with pytest.raises(Problem, match="is not in s3://") as caught:
        await world.artifacts.set_aside(missing.parts()[0])
    assert caught.value.code == "artifact-missing"
    overwrite(infra_s3, world, "short", data[1:], others)
    with pytest.raises(Problem) as caught:
        await world.missing(single(data, f"s3://{others}/short"))
    assert caught.value.code == "artifact-mismatch"


async def test_references_lead_only_where_the_operator_allows(world: World, data: bytes) -> None:
    await world.ready(data)
    own = f"s3://{world.store.bucket}/{blob_key(digest_of(data))}"
    itself = Artifacts(world.db, world.store, (world.store.bucket,))
    nowhere = Artifacts(world.db, world.store)
    for artifacts, source in ((world.artifacts, own), (itself, own), (nowhere, f"s3://{OTHER_BUCKETS[0]}/x")):
        artifact = single(data, source)
        async with world.db.transaction() as tx:
            with pytest.raises(Problem) as caught:
                await artifacts.claim(tx, artifact)
        assert (caught.value.status, caught.value.code) == (422, "reference-not-allowed")
        with pytest.raises(Problem):
            await artifacts.set_aside(artifact.parts()[0])


def overwrite(server: S3, world: World, key: str, data: bytes, bucket: str | None = None) -> None:
    """What no address of ours would take: bytes of another digest."""

    raw = s3.client(server.endpoint, server.access_key, server.secret_key)
    raw.put_object(bucket or world.store.bucket, key, io.BytesIO(data), len(data))
