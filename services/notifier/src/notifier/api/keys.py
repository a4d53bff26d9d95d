"""The public keys that webhooks are signed with, for whoever checks them."""

import time
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from kit.openapi import NO_TOKEN
from kit.ring import read_ring
from kit.webhooks import public_text


class WebhookKey(BaseModel):
    """`key` is `whpk_` and the base64 of an Ed25519 public key. An `active` one signs, a `waiting` one will,
    a `retired` one did, and a message signed by a `revoked` one is nobody's."""

    kid: str
    key: str
    state: Literal["waiting", "active", "retired", "revoked"]


class WebhookKeys(BaseModel):
    keys: list[WebhookKey]


def router(path: Path | None) -> APIRouter:
    """Raises ValueError when the file is missing or holds no keys. None: webhooks are signed by secrets only."""
    routes = APIRouter(prefix="/v1", tags=["notifier"])
    ring = read_ring(path, time.time()) if path else None

    @routes.get("/webhook-keys", summary="The public keys that webhooks are signed with", openapi_extra=NO_TOKEN)
    async def webhook_keys() -> WebhookKeys:
        at = time.time()
        found = ring.keys if ring else ()
        return WebhookKeys(keys=[WebhookKey(kid=k.kid, key=public_text(k.key), state=k.state(at)) for k in found])

    return routes
