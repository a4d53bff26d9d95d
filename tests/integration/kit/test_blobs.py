"""The object store, on a real one."""

import hashlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from minio import Minio
from minio.error import S3Error

from embedded import s3
from embedded.fixtures import S3, new_bucket
from embedded.ports import free_port
from kit import blobs
from kit.blobs import BlobStore
from kit.errors import is_transient

MIB = 1 << 20


@pytest.fixture
def raw(infra_s3: S3) -> Minio:
    return s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)


@pytest.fixture
def store(infra_s3: S3, bucket: str) -> BlobStore:
    return store_on(infra_s3, bucket)


def store_on(server: S3, bucket: str, endpoint: str | None = None) -> BlobStore:
    return BlobStore(
        endpoint=endpoint or server.endpoint,
        public_endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        bucket=bucket,
        region="us-east-1",
    )


@pytest.fixture
def other(infra_s3: S3) -> Iterator[str]:
    with new_bucket(infra_s3) as name:
        yield name


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def put(store: BlobStore, key: str, data: bytes) -> None:
    url, headers = store.presign_put(key, len(data), digest_of(data))
    assert httpx2.put(url, content=data, headers=headers).status_code == 200


async def get(store: BlobStore, key: str) -> bytes:
    return httpx2.get(store.presign_get(key)).raise_for_status().content


@pytest.mark.parametrize("key", ["plain", "a/b c/ü+%~.bin", "x=y&z?#/"[:-1], "sha256/aa.b"])
async def test_what_was_put_through_an_address_is_got_through_one(store: BlobStore, key: str) -> None:
    data = os.urandom(1000)
    await put(store, key, data)
    assert await get(store, key) == data
    found = await store.stat(key)
    assert found is not None
    assert found.size == 1000
    assert await store.has(key, 1000)
    assert not await store.has(key, 999)


async def test_an_empty_object_is_an_object(store: BlobStore) -> None:
    await put(store, "empty", b"")
    await store.copy("empty", "copy")
    assert await get(store, "copy") == b""


@pytest.mark.parametrize("body", [b"1234", b"123456", b""], ids=["shorter", "longer", "empty"])
async def test_an_address_takes_no_other_length(store: BlobStore, body: bytes) -> None:
    url, headers = store.presign_put("k", 5, digest_of(b"12345"))
    answer = httpx2.put(url, content=body, headers={**headers, "content-length": str(len(body))})
    assert answer.status_code == 403
    assert await store.stat("k") is None


async def test_an_address_takes_no_other_bytes(store: BlobStore) -> None:
    url, headers = store.presign_put("k", 5, digest_of(b"12345"))
    assert httpx2.put(url, content=b"54321", headers=headers).status_code == 400
    assert httpx2.put(url, content=b"54321", headers={"content-length": "5"}).status_code == 403
    lying = {
        **headers,
        "x-amz-checksum-sha256": store.presign_put("k", 5, digest_of(b"54321"))[1]["x-amz-checksum-sha256"],
    }
    assert httpx2.put(url, content=b"54321", headers=lying).status_code == 403
    assert await store.stat("k") is None


async def test_an_address_is_good_for_one_object_and_one_verb(store: BlobStore) -> None:
    await put(store, "mine", b"mine")
    await put(store, "yours", b"yours")
    url = store.presign_get("mine")
    assert httpx2.get(url.replace("/mine?", "/yours?")).status_code == 403
    assert httpx2.put(url, content=b"x").status_code == 403
    assert httpx2.delete(url).status_code == 403


async def test_a_download_has_its_file_name(store: BlobStore) -> None:
    await put(store, "k", b"x")
    answer = httpx2.get(store.presign_get("k", filename='mö "1".onnx')).raise_for_status()
    assert "m%C3%B6%20%221%22.onnx" in answer.headers["content-disposition"]


async def test_addresses_name_the_endpoint_of_their_side(infra_s3: S3, bucket: str) -> None:
    store = BlobStore(
        endpoint="http://inside.example:8333",
        public_endpoint="https://models.example",
        access_key="a",
        secret_key="s",
        bucket=bucket,
        region="us-east-1",
    )
    assert urlsplit(store.presign_get("k", inside=True)).netloc == "inside.example:8333"
    assert store.presign_get("k").startswith("https://models.example/")


async def test_a_large_copy_is_made_in_parts(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, other: str, infra_s3: S3
) -> None:
    monkeypatch.setattr(blobs, "COPY_PART", 5 * MIB)
    data = os.urandom(12 * MIB + 1)
    away = store_on(infra_s3, other)
    await put(away, "a b/ü", data)
    await store.copy("a b/ü", "target", source_bucket=other)
    assert await get(store, "target") == data
    assert await store.unfinished("") == []


async def test_a_copy_of_nothing_says_so(store: BlobStore) -> None:
    with pytest.raises(S3Error) as caught:
        await store.copy("nothing", "target")
    assert caught.value.code in blobs.GONE
    assert await store.stat("target") is None


async def test_what_is_not_there_is_none(store: BlobStore) -> None:
    assert await store.stat("nothing") is None
    assert await store.stat("nothing", bucket="no-such-bucket-here") is None
    await store.delete("nothing")
    await store.delete("nothing", "neither")


async def test_lists_go_over_pages(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "PAGE", 2)
    keys = {f"a/{n}/x" for n in range(5)}
    for key in [*keys, "b/1"]:
        await put(store, key, b"x")
    assert {found.key async for found in store.objects("a/")} == keys
    await store.delete(*keys)
    assert [found.key async for found in store.objects("")] == ["b/1"]


async def test_a_multipart_upload_from_start_to_end(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "PAGE", 2)  # of its parts too
    pieces = [os.urandom(5 * MIB), os.urandom(5 * MIB), os.urandom(10)]
    upload = await store.start_multipart("k")
    for number, piece in enumerate(pieces, 1):
        url, headers = store.presign_part("k", upload, number, len(piece))
        assert httpx2.put(url, content=piece[1:]).status_code == 403
        httpx2.put(url, content=piece, headers=headers).raise_for_status()
    parts = await store.parts("k", upload)
    assert parts is not None
    assert [(part.number, part.size) for part in parts] == [(1, 5 * MIB), (2, 5 * MIB), (3, 10)]
    assert [found.upload_id for found in await store.unfinished("k")] == [upload]
    assert await store.finish_multipart("k", upload, parts)
    assert await get(store, "k") == b"".join(pieces)
    assert await store.unfinished("") == []


async def test_unfinished_uploads_are_listed_over_pages_and_aborted(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PAGE", 2)
    uploads = {await store.start_multipart(f"k{n % 3}") for n in range(7)}
    found = await store.unfinished("k")
    assert {upload.upload_id for upload in found} == uploads
    for upload in found:
        await store.abort_multipart(upload.key, upload.upload_id)
        await store.abort_multipart(upload.key, upload.upload_id)
    assert await store.unfinished("k") == []
    assert await store.parts("k0", found[0].upload_id) is None
    assert not await store.finish_multipart("k0", found[0].upload_id, [])


async def test_a_store_that_is_away_is_worth_another_try(infra_s3: S3, bucket: str) -> None:
    away = store_on(infra_s3, bucket, f"http://127.0.0.1:{free_port(())}")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it must count as transient
        await away.stat("k")
    assert is_transient(caught.value)
