"""An approval service that says what a test tells it to, and keeps what it was asked."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

Run = Callable[..., tuple[int, str, str]]  # the words of a command -> exit code, stdout, stderr
ID = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"
ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
AT = "2026-03-04T05:06:07.890+00:00"
REQUEST: dict[str, Any] = {
    "request_id": ID,
    "kind": "promotion",
    "workspace": "default",
    "model": "fraud",
    "version": 3,
    "from_stage": "Staging",
    "to_stage": "Production",
    "status": "open",
    "phase": "people",
    "waits_for": "production/review: 0 of 2",
    "requested_by": "ana",
    "reason": "beats v2",
    "fields": {"change_ticket": "CHG0000042"},
    "policies": [{"name": "production", "revision": 2, "digest": ONE}],
    "gates": [{"gate": "production/auc", "expression": "candidate.metrics.auc > 0.9", "result": "pass", "message": ""}],
    "rules": [
        {"id": "production/review", "from": ["group:reviewers"], "count": 2, "meaning": "I reviewed it", "have": 0}
    ],
    "votes": [],
    "request_digest": ONE,
    "inputs_digest": TWO,
    "opened_at": AT,
    "expires_at": "2026-03-07T05:06:07+00:00",
    "you": {"may_vote": True, "code": None, "detail": None, "on_behalf_of": [], "voted": False},
}
VOTE = {
    "voter": "ben",
    "choice": "approve",
    "rule": "production/review",
    "meaning": "I reviewed it",
    "comment": "[fine]",
    "at": AT,
    "auth_method": "oidc",
    "request_digest": ONE,
    "on_behalf_of": "bea",
}
POLICY = {
    "name": "production",
    "revision": 2,
    "digest": ONE,
    "document": "kind: PromotionPolicy\nmetadata: {name: production}\n",
    "published_by": "root",
    "published_at": AT,
}
CHANGE: dict[str, Any] = {
    **REQUEST,
    "fields": {},
    "kind": "policy",
    "workspace": "*",
    "model": "production",
    "from_stage": "revision 2",
    "to_stage": "revision 3",
    "waits_for": "policy-changes/agree: 0 of 1",
    "rules": [{"id": "policy-changes/agree", "from": ["group:admins"], "count": 1, "meaning": "agree", "have": 0}],
    "document": "kind: PromotionPolicy\nmetadata: {name: production, owner: risk}\n",
}
SERVICES = ("registry", "approval", "audit", "notifier")
Answer = tuple[int, Any] | Callable[[httpx2.Request], httpx2.Response]


@dataclass
class Service:
    """Answers by method and path; a list of answers is given one by one, the last for ever. `asked` is what came."""

    answers: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, asked: httpx2.Request) -> httpx2.Response:
        if asked.url.path == "/.well-known/hallmark.json":
            return httpx2.Response(200, json=dict.fromkeys(SERVICES, "http://a"))
        self.asked.append(asked)
        given = self.answers[f"{asked.method} {asked.url.path}"]
        answer = (given.pop(0) if len(given) > 1 else given[0]) if isinstance(given, list) else given
        if callable(answer):
            return answer(asked)
        status, body = answer
        if isinstance(body, str):
            return httpx2.Response(status, text=body)
        return httpx2.Response(status, json=body)

    def sent(self, call: str) -> dict[str, Any]:
        """The body of the last such call."""
        [*_, last] = [one for one in self.asked if f"{one.method} {one.url.path}" == call]
        found: dict[str, Any] = json.loads(last.content)
        return found


def problem(code: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": f"urn:hallmark:problem:{code}", "detail": detail, **more}
