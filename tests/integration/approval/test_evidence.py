"""Evidence: files, links and what checks found, over HTTP and on a real store."""

import asyncio
import io
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
import sqlalchemy as sa
from minio import Minio
from tests.integration.approval.checks import Rig, digest_of, make_rig
from tests.integration.approval.conftest import Direct
from tests.integration.approval.exhibits import Document, attach, code_of, file_of, listed, stored, upload

from approval import files as files_module
from approval.evidence import MAX_PIECES
from approval.files import MAX_FILE
from approval.tables import EvidenceRow, of
from contracts.envelope import now
from embedded import s3
from embedded.fixtures import S3

CARD = b"# Model card\nTrained on 2026-11."


@pytest.fixture(scope="module")
def store(infra_s3: S3) -> Iterator[dict[str, str]]:
    with stored(infra_s3) as options:
        yield options


@pytest.fixture
async def rig(direct: Direct, store: dict[str, str]) -> Rig:
    """With version 1 of the model `m`."""
    found = make_rig(direct, **store)
    await direct.registry.register("m", accuracy=0.95)
    return found


@pytest.fixture
def raw(store: dict[str, str]) -> Minio:
    """The store, as whoever holds its keys sees it."""
    return s3.client(store["s3_endpoint"], store["s3_access_key"], store["s3_secret_key"])


# -- pieces --------------------------------------------------------------------------------------------------------


async def test_must_evidence_links_and_files(rig: Rig) -> None:
    link = await attach(rig.ana, type="review", title="Risk review", url="https://wiki.example/risk?x=1", detail="ok")
    assert link.status_code == 201, link.text
    await upload(rig.ana, CARD)
    card = await attach(rig.ana, **file_of(CARD))
    assert card.status_code == 201, card.text
    document = card.json()
    assert (document["digest"], document["size"], document["posted_by"]) == (digest_of(CARD), len(CARD), "ana")
    assert (document["groups"], document["service"], document["result"]) == (["ml-engineers"], False, None)
    assert document["file"] == f"/v1/evidence/{document['evidence_id']}/file"
    found = await listed(rig.ana)
    assert found == {"items": [document, link.json()], "next": None}
    assert (await rig.ana.get(f"/v1/evidence/{document['evidence_id']}")).json() == document
    assert await rig.direct.types("default/m") == ["evidence.attached", "evidence.attached"]


async def test_a_file_comes_back_as_an_attachment(rig: Rig) -> None:
    await upload(rig.ana, CARD)
    document = (await attach(rig.ana, **file_of(CARD), title="Modellkarte größer/kleiner")).json()
    redirect = await rig.client("ben", "reviewers").get(document["file"])
    assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "no-store")
    async with httpx2.AsyncClient() as outside:
        got = await outside.get(redirect.headers["location"])
    assert got.content == CARD
    assert got.headers["content-type"] == "text/markdown"
    assert got.headers["content-disposition"].startswith("attachment; filename*=UTF-8''Modellkarte%20gr%C3%B6")


async def test_what_is_attached_twice_is_one_piece(rig: Rig) -> None:
    first = await attach(rig.ana, url="https://wiki.example/card")
    again = await attach(rig.ana, url="https://wiki.example/card", detail="other words")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    for other in ({"url": "https://wiki.example/2"}, {"url": "https://wiki.example/card", "title": "Card"}):
        assert (await attach(rig.ana, **other)).status_code == 201
    assert (await attach(rig.ana, url="https://wiki.example/card")).json() == first.json()
    assert (await attach(rig.client("ben", "reviewers"), url="https://wiki.example/card")).status_code == 201
    assert len((await listed(rig.ana))["items"]) == 4


async def test_of_a_race_one_piece_comes(rig: Rig) -> None:
    await upload(rig.ana, CARD)
    responses = await asyncio.gather(*(attach(rig.ana, **file_of(CARD)) for _ in range(8)))
    assert sorted(r.status_code for r in responses) == [200] * 7 + [201]
    assert len({r.json()["evidence_id"] for r in responses}) == 1


async def test_the_latest_word_of_a_check_is_always_recorded(rig: Rig) -> None:
    results = ("pass", "pass", "fail", "pass", "fail", "fail")
    statuses = [(await attach(rig.ci, type="tests", title="CI", result=result)).status_code for result in results]
    assert statuses == [201, 200, 201, 201, 201, 200]
    assert [one["result"] for one in (await listed(rig.ana))["items"]] == ["fail", "pass", "fail", "pass"]
    assert all(one["service"] for one in (await listed(rig.ana))["items"])


async def test_pages_of_evidence(rig: Rig) -> None:
    ids = [(await attach(rig.ana, url=f"https://x.example/{n}")).json()["evidence_id"] for n in range(5)]
    found, after = [], None
    while True:
        page = await listed(rig.ana, limit=2, **({"after": after} if after else {}))
        found += [one["evidence_id"] for one in page["items"]]
        if (after := page["next"]) is None:
            break
    assert found == ids[::-1]


async def test_a_version_has_room_for_a_thousand_pieces(rig: Rig) -> None:
    known = (await attach(rig.ana, url="https://x.example/0")).json()
    async with rig.direct.db.transaction() as tx:
        data = await tx.scalar(sa.select(of(EvidenceRow).c.data))
        rows = [
            {"evidence_id": f"e{n}", "workspace": "default", "model": "m", "version": 1, "at": now(), "data": data}
            for n in range(MAX_PIECES - 1)
        ]
        await tx.execute(sa.insert(of(EvidenceRow)), rows)
    assert code_of(await attach(rig.ana, url="https://x.example/1")) == (409, "too-much-evidence")
    assert (await attach(rig.ana, url="https://x.example/0")).status_code == 200
    assert known["posted_by"] == "ana"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"digest": "sha256:" + "a" * 64},
        {"size": 3, "url": "https://x.example"},
        {"digest": "md5:1", "size": 1},
        {"digest": "sha256:" + "a" * 64, "size": 0},
        {"digest": "sha256:" + "a" * 64, "size": MAX_FILE + 1},
        {"url": "ftp://x.example"},
        {"url": "javascript:alert(1)"},
        {"url": "https://x.example/ a"},
        {"result": "error"},
        {"url": "https://x.example", "title": ""},
        {"url": "https://x.example", "title": "a\nb"},
        {"url": "https://x.example", "detail": "a\u0000b"},
        {"url": "https://x.example", "media_type": "text"},
        {"url": "https://x.example", "media_type": "text/größe"},
        {"url": "https://x.example", "media_type": "text/plain\r\nx: y"},
        {"url": "https://x.example", "posted_by": "eve"},
        {"url": "https://x.example", "version": 0},
        {"url": "https://x.example", "model": "a/b"},
    ],
)
async def test_what_is_no_evidence_is_refused(rig: Rig, body: Document) -> None:
    assert code_of(await attach(rig.ana, **body)) == (422, "invalid-request")


async def test_who_may_attach_and_read(rig: Rig) -> None:
    one = (await attach(rig.ana, url="https://x.example")).json()
    guest, stranger = rig.client("gus", "guests"), rig.anybody()
    for client, status in ((guest, 403), (stranger, 401)):
        assert (await attach(client, url="https://x.example")).status_code == status
        assert (await client.get("/v1/evidence", params={"model": "m", "version": 1})).status_code == status
        assert (await client.get(f"/v1/evidence/{one['evidence_id']}")).status_code == status
        assert (await client.get(f"/v1/evidence/{one['evidence_id']}/file")).status_code == status
        body = {"digest": digest_of(b"x"), "size": 1}
        assert (await client.post("/v1/evidence/uploads", json=body)).status_code == status
    assert (
        await attach(rig.client("vic", "guests"), workspace="elsewhere", url="https://x.example")
    ).status_code == 403


async def test_what_is_not_there_is_told(rig: Rig) -> None:
    assert code_of(await attach(rig.ana, version=2, url="https://x.example")) == (404, "version-not-found")
    assert code_of(await attach(rig.ana, model="other", url="https://x.example")) == (404, "version-not-found")
    assert code_of(await rig.ana.get("/v1/evidence", params={"model": "m", "version": 2}))[1] == "version-not-found"
    assert code_of(await rig.ana.get("/v1/evidence/nothing")) == (404, "evidence-not-found")
    link = (await attach(rig.ana, url="https://x.example")).json()
    assert code_of(await rig.ana.get(f"/v1/evidence/{link['evidence_id']}/file")) == (404, "no-file")


# -- files ---------------------------------------------------------------------------------------------------------


async def test_a_file_must_have_been_sent_by_who_attaches_it(rig: Rig) -> None:
    data = b"sent by ana"
    assert code_of(await attach(rig.ana, **file_of(data))) == (422, "evidence-missing")
    await upload(rig.ana, data)
    assert (await upload(rig.ana, data))["state"] == "present"
    assert code_of(await attach(rig.ci, **file_of(data))) == (422, "evidence-missing")
    assert code_of(await attach(rig.ana, **{**file_of(data), "size": 5})) == (422, "evidence-missing")
    assert (await attach(rig.ana, **file_of(data))).status_code == 201
    assert (await attach(rig.ci, **file_of(data))).status_code == 201  # the model has it now


async def test_to_know_the_digest_of_another_models_file_is_not_to_have_it(rig: Rig) -> None:
    data = b"secret of m"
    await upload(rig.ana, data)
    assert (await attach(rig.ana, **file_of(data))).status_code == 201
    await rig.direct.registry.register("mine", accuracy=0.5)
    assert code_of(await attach(rig.ci, model="mine", **file_of(data))) == (422, "evidence-missing")


async def test_beyond_evidence_bytes_that_are_not_those_of_the_digest_are_refused(
    rig: Rig, raw: Minio, store: dict[str, str]
) -> None:
    """Where a store knows no checksums, or somebody holds its keys."""
    data, other = b"what was said", b"what was sent"
    await upload(rig.ana, data)
    [upload_key] = keys(raw, store, "evidence/incoming/", data)
    raw.put_object(store["s3_bucket"], upload_key, io.BytesIO(other), len(other))
    response = await attach(rig.ana, **file_of(data))
    assert code_of(response) == (422, "evidence-mismatch")
    assert digest_of(other) in response.json()["detail"]
    assert (await listed(rig.ana))["items"] == []
    assert keys(raw, store, "evidence/files/", data) == []
    # It was thrown away: the next upload is a new one.
    assert (await upload(rig.ana, data))["state"] == "single"
    assert (await attach(rig.ana, **file_of(data))).status_code == 201


async def test_the_address_of_an_upload_takes_no_other_bytes_and_reaches_no_kept_file(
    rig: Rig, raw: Minio, store: dict[str, str]
) -> None:
    data, other = b"0123456789", b"9876543210"
    offer = await upload(rig.ana, data)
    document = (await attach(rig.ana, **file_of(data))).json()
    async with httpx2.AsyncClient() as outside:
        for body, headers in ((other, offer["headers"]), (data + b"x", {**offer["headers"], "content-length": "11"})):
            assert (await outside.put(offer["url"], content=body, headers=headers)).status_code in (400, 403)
        [upload_key] = keys(raw, store, "evidence/incoming/", data)
        raw.put_object(store["s3_bucket"], upload_key, io.BytesIO(other), len(other))
        redirect = await rig.ana.get(document["file"])
        assert (await outside.get(redirect.headers["location"])).content == data


async def test_a_kept_file_that_was_spoilt_is_noticed(rig: Rig, raw: Minio, store: dict[str, str]) -> None:
    data = b"kept for years"
    await upload(rig.ana, data)
    await attach(rig.ana, **file_of(data))
    [kept] = keys(raw, store, "evidence/files/", data)
    raw.put_object(store["s3_bucket"], kept, io.BytesIO(b"x"), 1)
    [upload_key] = keys(raw, store, "evidence/incoming/", data)
    raw.remove_object(store["s3_bucket"], upload_key)
    assert code_of(await attach(rig.ana, **file_of(data), title="Again")) == (422, "evidence-missing")


async def test_uploads_that_nobody_attaches_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rig.files is not None
    await upload(rig.ana, b"attached")
    await attach(rig.ana, **file_of(b"attached"))
    await upload(rig.ana, b"forgotten")
    assert await rig.files.tidy_once() == 0
    monkeypatch.setattr(files_module, "KEPT_INCOMING", timedelta(seconds=-60))
    assert await rig.files.tidy_once() >= 2
    assert code_of(await attach(rig.ana, **file_of(b"forgotten"))) == (422, "evidence-missing")
    assert (await attach(rig.ana, **file_of(b"attached"), title="Again")).status_code == 201


async def test_without_a_store_evidence_is_links_and_findings(direct: Direct) -> None:
    rig = make_rig(direct)
    await direct.registry.register("m")
    assert code_of(await rig.ana.post("/v1/evidence/uploads", json={"digest": digest_of(b"x"), "size": 1})) == (
        409,
        "no-store",
    )
    assert code_of(await attach(rig.ana, **file_of(b"x"))) == (409, "no-store")
    assert (await attach(rig.ana, url="https://x.example")).status_code == 201


async def test_the_store_may_be_away(direct: Direct) -> None:
    rig = make_rig(direct, s3_endpoint="http://127.0.0.1:1", s3_access_key="k", s3_secret_key="s")
    await direct.registry.register("m")
    assert (await attach(rig.ana, **file_of(b"x"))).status_code == 503
    assert (await attach(rig.ana, url="https://x.example")).status_code == 201


def keys(raw: Minio, store: dict[str, str], prefix: str, data: bytes) -> list[str]:
    name = digest_of(data).removeprefix("sha256:")
    found = raw.list_objects(store["s3_bucket"], prefix=prefix, recursive=True)
    return [str(one.object_name) for one in found if name in str(one.object_name)]
