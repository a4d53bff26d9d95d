"""Random policies, as documents: every part that policies have, most of them seldom."""

import json
from datetime import datetime, timedelta
from random import Random
from typing import Any

Doc = dict[str, Any]
GROUPS = ("reviewers", "risk", "leads", "security", "oncall", "admins", "ml-engineers")
STATIC = (
    "candidate.metrics.accuracy >= 0.9",
    "candidate.metrics.p95 < 100.0",
    "candidate.metrics.accuracy >= baseline.metrics.accuracy",
    "candidate.slices.all(s, s.metrics.auc >= 0.85)",
    'now - candidate.evaluated_at < duration("48h")',
    'candidate.attestations.exists(a, a.type == "ci" && a.verified)',
    "has(candidate.evidence.model_card)",
)
WHENS = (
    'model.tags.risk == "high"',
    'candidate.tags.team == "red"',
    'model.name.startsWith("risky")',
    'request.change_class != "standard"',
    'candidate.attestations.exists(a, a.type == "ci" && a.verified)',
    '!candidate.attestations.exists(a, a.type == "ci" && a.verified)',
)
PRODUCTION, ALIAS = {"to": "Production"}, {"kind": "alias", "to": "@champion"}
WIDE: list[Doc] = [PRODUCTION, PRODUCTION, {**PRODUCTION, "kind": "any"}]
OTHERS: list[Doc] = [
    *(*WIDE, PRODUCTION, {}, {"kind": "any"}, {"kind": "rollback"}, ALIAS, ALIAS),
    *({**PRODUCTION, "from": "Staging"}, {"from": "Archived"}, {"to": "production", "from": "STAGING"}),
]
NARROW: list[Doc] = [
    *({"models": ["risky*"]}, {"tags": {"risk": "high"}}, {"models": ["plain", "x?"]}),
    *({"workspaces": ["def*"]}, {"workspaces": ["other"]}),
]
HOURS = (("00:00", "24:00"), ("09:00", "17:30"), ("22:00", "06:00"), ("06:00", "20:00"))
# It is about nothing.
RETIRED: Doc = {"match": {"transition": PRODUCTION, "models": ["nothing"]}}


class Writer:
    """Writes policies. `gentle`: that ask little, so that walks get far."""

    def __init__(self, random: Random, *, gentle: bool) -> None:
        self._random, self._gentle = random, gentle

    def _one_in(self, odds: int) -> bool:
        return self._random.randrange(odds) == 0

    def _seldom(self) -> bool:
        return self._one_in(12 if self._gentle else 4)

    def _groups(self, *names: str) -> list[str]:
        return [f"group:{name}" for name in self._random.sample(names, self._random.choice([1, 1, 2]))]

    def spec(self, *, wide: bool) -> Doc:
        """`wide`: it is about Production, of every model. Freezes are hours from the moment of the publication."""
        random = self._random
        match: Doc = {"transition": random.choice(WIDE if wide else OTHERS)}
        if self._seldom() and not wide:
            match |= random.choice(NARROW)
        if self._seldom() and not wide:
            match["when"] = random.choice(WHENS)
        spec: Doc = {"match": match, "request": self._request(), "gates": self._gates()}
        if self._seldom():
            defaults = [{"on_error": "inconclusive"}, {"on_no_baseline": "pass"}, {"asks": ["group:leads"]}]
            spec["gate_defaults"] = random.choice(defaults)
        if not self._one_in(10):
            spec["approvals"] = self._approvals()
        if self._seldom() or self._one_in(6):
            spec["schedule"] = self._schedule()
        rules = [rule["id"] for rule in spec.get("approvals", {}).get("rules", ())]
        if rules and self._one_in(5):
            added = {"do": "add_approvers", "rule": random.choice(rules), "to": self._groups("leads", "risk")}
            spec["escalation"] = [{"after": "2h", "do": "remind"}, {"after": "5h", **added}]
        if self._one_in(3):
            spec["unsafe_artifact"] = {"waivable_by": self._groups("security", "leads")}
        if not self._one_in(6):
            spec["break_glass"] = self._glass()
        return spec

    def _request(self) -> Doc:
        found: Doc = {}
        if self._seldom():
            found["expires_after"] = self._random.choice(["30m", "6h", "3d"])
        if self._seldom() and self._one_in(2):
            found["reason"] = {"required": True, "min_length": 10}
        if self._seldom() and self._one_in(2):
            found["fields"] = {"change_ticket": {"required": True, "pattern": "^CHG[0-9]{3}$"}}
        if self._seldom() and self._one_in(2):
            found.setdefault("fields", {})["rollback_to"] = {"type": "model_version"}
        if self._seldom() and self._one_in(2):
            found["evidence"] = ["model_card"]
        return found

    def _gates(self) -> list[Doc]:
        count = self._random.choice([0, 1, 1] if self._gentle else [0, 1, 2, 3])
        asked = self._random.sample([*STATIC, "webhook", "attestation", "webhook", "attestation"], count)
        return [self._gate(f"g{n}", one) for n, one in enumerate(asked)]

    def _gate(self, gate_id: str, asked: str) -> Doc:
        gate: Doc = {"id": gate_id}
        if asked == "webhook":
            gate |= {"webhook": {"url": "https://checks.example/", "secret": "fairness"}, "timeout": "4h"}
        elif asked == "attestation":
            posters = self._random.choice([["user:ci"], ["user:ci", "user:ana"]])
            gate |= {"attestation": {"type": "ci", "from": posters}, "timeout": "4h"}
        else:
            gate["cel"] = asked
        kind = self._random.randrange(6)
        if kind == 0 and not (self._gentle and self._one_in(2)):
            gate["never_skip"] = True
        elif kind == 1:
            gate["level"] = "warn"
        elif kind > 2 or self._gentle:
            gate["waivable_by"] = self._random.choice([["group:leads"], ["group:risk", "group:leads"]])
        if kind == 2:
            gate["on_no_baseline"] = self._random.choice(["pass", "fail", "inconclusive"])
        return gate

    def _approvals(self) -> Doc:
        rules = []
        for n in range(self._random.choice([1, 1, 2])):
            groups = self._groups("reviewers", "risk", "leads")
            rule: Doc = {"id": f"r{n}", "meaning": f"I stand for r{n}", "from": groups}
            rule["count"] = self._random.choice([1, 2])
            if self._one_in(8):
                rule["when"] = self._random.choice(WHENS)
            rules.append(rule)
        found: Doc = {"rules": rules}
        if self._one_in(2):
            exclude = ["requester", "version.author", "version.committers", "policy.last_editor"]
            found["separation_of_duties"] = {"exclude": exclude}
        if self._one_in(2):
            found["deny"] = {"count": self._random.choice([1, 2])}
            found["deny"] |= {"from": self._groups("risk", "leads", "reviewers")} if self._one_in(2) else {}
        if not self._one_in(6):
            found["delegation"] = {"allowed": True, "max": self._random.choice(["1d", "14d"])}
        if self._one_in(5):
            found["valid_for"] = self._random.choice(["3h", "1d"])
        if self._one_in(6):
            found["signature"] = self._random.choice([{"reauthenticate_within": "5m"}, {"methods": ["webauthn"]}])
        return found

    def _schedule(self) -> Doc:
        random, found = self._random, dict[str, Any]()
        if self._one_in(2):
            start, end = random.choice(HOURS)
            days = random.choice(["Mon-Fri", "Mon-Sun", "Fri-Mon", "Tue,Thu-Sat"])
            zone = random.choice(["UTC", "Europe/Berlin", "America/New_York"])
            found["windows"] = [{"tz": zone, "days": days, "from": start, "to": end}]
        if self._one_in(2):
            since = random.randrange(-10, 40)
            until = since + random.randrange(1, 40)
            found["freezes"] = [{"name": "a freeze", "tz": "UTC", "from": since, "to": until}]
        if self._one_in(2) or not found:
            found["min_wait"] = random.choice(["30m", "5h"])
        return found

    def _glass(self) -> Doc:
        skips = self._random.choice([["approvals", "schedule", "gates"], ["approvals", "schedule"], ["approvals"]])
        review = {"from": self._groups("risk", "leads"), "count": self._random.choice([1, 2]), "within": "1d"}
        if self._one_in(2):
            review["on_overdue"] = self._random.choice([["page"], ["freeze_model"]])
        found: Doc = {"allowed": ["group:oncall"], "skips": skips, "page": ["service:oncall"], "review": review}
        if self._one_in(3):
            found["reauthenticate"] = False
        if self._one_in(3):
            found |= {"reason": {"required": True, "min_length": 10}, "grants_for": "2h"}
        return found


def text(name: str, spec: Doc, now: datetime) -> str:
    """The document, with the dates that count from now."""
    dated = json.loads(json.dumps(spec))
    for freeze in dated.get("schedule", {}).get("freezes", ()):
        for end in ("from", "to"):
            moment = now + timedelta(hours=freeze[end])
            freeze[end] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": dated})
