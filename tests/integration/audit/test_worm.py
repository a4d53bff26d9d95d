"""What the S3 store refuses for objects of the log: the table of `audit.md`, section 4.4, on objects that the archive
wrote into a bucket with object lock."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from minio import Minio
from minio.commonconfig import COMPLIANCE, GOVERNANCE
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.retention import Retention

from audit.tlog.archive import Archive, Contradiction
from audit.tlog.tiles import Tile
from embedded import s3
from embedded.fixtures import S3
from kit.blobs import BlobStore

Headers = dict[str, str | list[str] | tuple[str]]
DAYS = 200
BUNDLE, TILE = Tile(-1, 0).path, Tile(0, 0).path


@dataclass
class Worm:
    """A bucket with object lock, as the archive made it, and a client that may do anything S3 allows."""

    archive: Archive
    client: Minio
    bucket: str

    def version(self, key: str) -> str:
        """The version that the archive wrote first."""
        found = [
            o for o in self.client.list_objects(self.bucket, prefix=key, include_version=True) if not o.is_delete_marker
        ]
        return str(found[-1].version_id)

    def retention(self, key: str, version: str) -> Retention:
        found = self.client.get_object_retention(self.bucket, key, version)
        assert found is not None
        return found


@pytest.fixture
async def worm(infra_s3: S3) -> AsyncIterator[Worm]:
    name = f"t-{uuid4().hex[:12]}"
    client = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    store = BlobStore(
        endpoint=infra_s3.endpoint,
        public_endpoint=infra_s3.endpoint,
        access_key=infra_s3.access_key,
        secret_key=infra_s3.secret_key,
        bucket=name,
        region=s3.REGION,
    )
    archive = Archive(store, lock_days=DAYS)
    await archive.ready()
    await archive.keep(BUNDLE, b"entries")
    await archive.keep(TILE, b"hashes")
    yield Worm(archive, client, name)
    with suppress(S3Error):  # what is locked stays until the store goes
        client.remove_bucket(name)


def denied(error: pytest.ExceptionInfo[S3Error]) -> bool:
    return error.value.code in ("AccessDenied", "InvalidRequest", "ObjectLocked") and error.value.response.status in (
        400,
        403,
    )


def test_objects_of_the_log_are_locked(worm: Worm) -> None:
    found = worm.retention(BUNDLE, worm.version(BUNDLE))
    assert found.mode == COMPLIANCE
    until = found.retain_until_date.replace(tzinfo=UTC)
    assert abs(until - datetime.now(UTC) - timedelta(days=DAYS)) < timedelta(hours=1)


@pytest.mark.parametrize("bypass", [False, True])
async def test_a_locked_version_cannot_be_deleted(worm: Worm, bypass: bool) -> None:
    version = worm.version(BUNDLE)
    headers: Headers = {"x-amz-bypass-governance-retention": "true"} if bypass else {}
    with pytest.raises(S3Error) as refused:
        worm.client._execute(
            "DELETE", bucket_name=worm.bucket, object_name=BUNDLE, headers=headers, query_params={"versionId": version}
        )
    assert denied(refused)
    assert await worm.archive.read(BUNDLE) == b"entries"


CHANGES = {
    "shortened": Retention(COMPLIANCE, datetime.now(UTC) + timedelta(days=1)),
    "weakened": Retention(GOVERNANCE, datetime.now(UTC) + timedelta(days=DAYS + 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_lock_cannot_be(worm: Worm, name: str) -> None:
    version = worm.version(TILE)
    before = worm.retention(TILE, version)
    with pytest.raises(S3Error) as refused:
        worm.client.set_object_retention(worm.bucket, TILE, CHANGES[name], version_id=version)
    assert denied(refused)
    after = worm.retention(TILE, version)
    assert (after.mode, after.retain_until_date) == (before.mode, before.retain_until_date)


def test_the_lock_can_be_extended(worm: Worm) -> None:
    version, later = worm.version(TILE), datetime.now(UTC) + timedelta(days=DAYS + 100)
    worm.client.set_object_retention(worm.bucket, TILE, Retention(COMPLIANCE, later), version_id=version)
    found = worm.retention(TILE, version).retain_until_date.replace(tzinfo=UTC)
    assert abs(found - later) < timedelta(seconds=2)


def test_a_governed_object_goes_only_with_a_bypass(worm: Worm) -> None:
    """The reason why the archive locks in COMPLIANCE mode."""
    key = "governed"
    until = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers: Headers = {"x-amz-object-lock-mode": GOVERNANCE, "x-amz-object-lock-retain-until-date": until}
    worm.client._put_object(worm.bucket, key, b"x", headers)
    version = worm.version(key)
    with pytest.raises(S3Error) as refused:
        worm.client.remove_object(worm.bucket, key, version_id=version)
    assert denied(refused)
    worm.client._execute(
        "DELETE",
        bucket_name=worm.bucket,
        object_name=key,
        headers={"x-amz-bypass-governance-retention": "true"},
        query_params={"versionId": version},
    )
    with pytest.raises(S3Error):
        worm.client.stat_object(worm.bucket, key, version_id=version)


async def test_a_legal_hold_keeps_an_object_that_no_lock_keeps(worm: Worm) -> None:
    key = "held"
    await worm.archive.keep(key, b"x", lock=False)
    version = worm.version(key)
    worm.client.enable_object_legal_hold(worm.bucket, key, version_id=version)
    assert worm.client.is_object_legal_hold_enabled(worm.bucket, key, version_id=version)
    with pytest.raises(S3Error) as refused:
        worm.client.remove_object(worm.bucket, key, version_id=version)
    assert denied(refused)
    worm.client.disable_object_legal_hold(worm.bucket, key, version_id=version)
    worm.client.remove_object(worm.bucket, key, version_id=version)
    with pytest.raises(S3Error):
        worm.client.stat_object(worm.bucket, key, version_id=version)


def test_a_batch_delete_tells_what_it_did_not_delete(worm: Worm) -> None:
    wanted = {key: worm.version(key) for key in (BUNDLE, TILE)}
    errors = worm.client.remove_objects(worm.bucket, [DeleteObject(key, version) for key, version in wanted.items()])
    assert {error.name for error in errors} == set(wanted)
    assert {key: worm.version(key) for key in wanted} == wanted


async def test_nothing_is_put_in_its_place(worm: Worm) -> None:
    await worm.archive.keep(BUNDLE, b"entries")
    with pytest.raises(Contradiction):
        await worm.archive.keep(BUNDLE, b"forged!")
    assert await worm.archive.store.put(BUNDLE, b"forged!", {"If-None-Match": "*"}) is None
    assert await worm.archive.read(BUNDLE) == b"entries"


async def test_new_versions_and_delete_markers_hide_but_do_not_destroy(worm: Worm) -> None:
    """S3 allows them always: what the log wrote is still there under its version, and the archive finds them wrong."""
    version = worm.version(BUNDLE)
    await worm.archive.store.put(BUNDLE, b"forged!", {})
    assert await worm.archive.read(BUNDLE) == b"forged!"
    with pytest.raises(Contradiction):
        await worm.archive.keep(BUNDLE, b"entries")
    worm.client.remove_object(worm.bucket, BUNDLE)
    assert await worm.archive.read(BUNDLE) is None
    response = worm.client.get_object(worm.bucket, BUNDLE, version_id=version)
    assert response.data == b"entries"
    response.release_conn()
