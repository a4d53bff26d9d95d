"""Evidence as clients bring it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from tests.integration.approval.checks import digest_of

from embedded.fixtures import S3, new_bucket

Document = dict[str, Any]


@contextmanager
def stored(server: S3) -> Iterator[dict[str, str]]:
    """Settings of a store with a bucket of its own."""
    with new_bucket(server) as bucket:
        yield {
            "s3_endpoint": server.endpoint,
            "s3_access_key": server.access_key,
            "s3_secret_key": server.secret_key,
            "s3_bucket": bucket,
        }


async def upload(client: httpx2.AsyncClient, data: bytes, **body: Any) -> Document:
    """Gives the offer, after the bytes were sent where it says."""
    response = await client.post(
        "/v1/evidence/uploads",
        json={"digest": digest_of(data), "size": len(data), "media_type": "text/markdown", **body},
    )
    assert response.status_code == 200, response.text
    offer: Document = response.json()
    if offer["state"] == "single":
        async with httpx2.AsyncClient() as outside:
            (await outside.put(offer["url"], content=data, headers=offer["headers"])).raise_for_status()
    return offer


async def attach(client: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
    given = {"model": "m", "version": 1, "type": "model_card", "title": "Model card", **body}
    return await client.post("/v1/evidence", json=given)


def file_of(data: bytes) -> Document:
    return {"digest": digest_of(data), "size": len(data), "media_type": "text/markdown"}


async def listed(client: httpx2.AsyncClient, **query: Any) -> Document:
    response = await client.get("/v1/evidence", params={"model": "m", "version": 1, **query})
    assert response.status_code == 200, response.text
    found: Document = response.json()
    return found


def code_of(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]
