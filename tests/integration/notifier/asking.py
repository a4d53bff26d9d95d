"""Calls of the notifier's API by people with and without rights."""

from collections.abc import Callable
from typing import Any

import httpx2

ACCESS = """
roles:
  - {group: ml-engineers, role: contributor}
  - {group: fraud-team, role: viewer, model: "fraud-*"}
  - {group: admins, role: admin}
"""
As = Callable[..., httpx2.AsyncClient]


async def made_by(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/subscriptions", json=body)
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


def code(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["type"]).removeprefix("urn:hallmark:problem:")
