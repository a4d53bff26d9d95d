"""The HTTP surface of approval, as clients meet it: requests, tokens, and what every error must look like."""

import time
from typing import Any

import httpx2
from joserfc import jwt
from tests.integration.approval.conftest import Document, Harness

from contracts.lifecycle import Stage

STRANGER = ("gus", "guests")  # may read in the workspace `elsewhere`, and nothing in `default`
# Models are about this policy by their names. No policy that ships with the service is about this stage.
POLICY = """
kind: PromotionPolicy
metadata: {name: %(name)s}
spec:
  match: {transition: {to: Archived}, models: ['%(name)s*']}
  gates:
    - {id: accuracy, cel: 'candidate.metrics.accuracy >= 0.9', waivable_by: ['group:leads']}
    - {id: hint, cel: 'candidate.metrics.accuracy >= 0.99', level: warn}
    - {id: sane, cel: 'candidate.metrics.accuracy >= 0.1', never_skip: true}
  approvals:
    rules: [{id: review, meaning: I reviewed it, from: ['group:reviewers'], count: 2}]
    separation_of_duties: {exclude: [requester, version.author, version.committers]}
    signature: {reauthenticate_within: 5m}
    delegation: {allowed: true, max: 30d}
  break_glass:
    allowed: ['group:oncall']
    skips: [approvals, schedule, gates]
    reason: {required: true, min_length: 10}
    page: ['group:risk']
    review: {from: ['group:risk'], count: 1, within: 2d}
"""


def problem(response: httpx2.Response) -> tuple[int, str]:
    """The status and the code of an error, which must be a problem in full."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    prefix, _, code = body["type"].rpartition(":")
    assert (prefix, body["status"]) == ("urn:hallmark:problem", response.status_code)
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.request.url.path
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    return response.status_code, code


def good(response: httpx2.Response) -> Document:
    assert response.status_code in (200, 201), response.text
    found: Document = response.json()
    return found


def signed_in(approval: Harness, subject: str, *groups: str, minutes_ago: float) -> httpx2.AsyncClient:
    """Somebody with a token that is good, of a sign-in some time ago."""
    key, at = approval.keys["auth"], int(time.time())
    claims: Document = {"iss": "hallmark", "aud": "hallmark", "sub": subject, "groups": [*groups], "kind": "person"}
    claims |= {"iat": at, "auth_time": at - round(minutes_ago * 60), "exp": at + 600}
    token = jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"])
    client = approval.client(subject, *groups)
    client.headers["authorization"] = f"Bearer {token}"
    return client


async def asked(approval: Harness, model: str, **given: Any) -> Document:
    """A request about version 1 of the model, once it is there; the model comes with it."""
    accuracy, committers = given.pop("accuracy", 0.95), given.pop("committers", ())
    if (model, 1) not in approval.registry.versions:
        await approval.registry.register(model, by="carl", committers=committers, accuracy=accuracy)
    return await approval.opened(await approval.registry.request(model, **{"to": Stage.ARCHIVED, **given}))
