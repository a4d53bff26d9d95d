"""HTTP in: requests, policies, people, evidence, Slack, and the keys that decisions are checked with."""

from typing import Any

from fastapi import APIRouter

from approval.api.common import Callers
from approval.api.evidence import router as evidence
from approval.api.people import router as people
from approval.api.policies import router as policies
from approval.api.requests import router as requests
from approval.api.revocations import router as revocations
from approval.api.slack import router as slack
from approval.keyring import Keyring, published
from kit.openapi import NO_TOKEN

__all__ = ["Callers", "evidence", "keys", "people", "policies", "requests", "revocations", "slack"]


def keys(keyring: Keyring) -> APIRouter:
    api = APIRouter(tags=["keys"])

    @api.get("/.well-known/jwks.json", summary="The key set that verifies decisions", openapi_extra=NO_TOKEN)
    async def jwks() -> dict[str, Any]:
        return published(keyring)

    return api
