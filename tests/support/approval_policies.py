"""Random policies, as documents: every part that policies have, most of them seldom."""

import json
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

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
)
HOURS = (("00:00", "24:00"), ("09:00", "17:30"), ("22:00", "06:00"), ("06:00", "20:00"))
# It is about nothing.
RETIRED: Doc = {"match": {"transition": {"to": "Production"}, "models": ["nothing"]}}


@st.composite
def documents(draw: st.DrawFn, *, gentle: bool = False, wide: bool = False) -> Doc:
    """The spec of a policy; times of freezes are hours from the moment it is published. `gentle`: it asks little, so
    that walks get far. `wide`: it is about Production, of every model."""
    odds = 12 if gentle else 4

    def seldom(odds: int = odds) -> bool:
        return draw(st.integers(1, odds)) == odds

    def some(*groups: str) -> list[str]:
        return [
            f"group:{name}" for name in draw(st.lists(st.sampled_from(groups), min_size=1, max_size=2, unique=True))
        ]

    production, alias = {"to": "Production"}, {"kind": "alias", "to": "@champion"}
    always = [production, production, {**production, "kind": "any"}]
    others = [production, production, {}, {"kind": "any"}, {"kind": "rollback"}, alias, alias]
    match: Doc = {"transition": draw(st.sampled_from(always if wide else always + others))}
    if seldom() and not wide:
        match |= draw(
            st.sampled_from([{"models": ["risky*"]}, {"tags": {"risk": "high"}}, {"models": ["plain", "x?"]}])
        )
    if seldom() and not wide:
        match["when"] = draw(st.sampled_from(WHENS))
    spec: Doc = {"match": match}
    request: Doc = {}
    if seldom():
        request["expires_after"] = draw(st.sampled_from(["30m", "6h", "3d"]))
    if seldom(8):
        request["reason"] = {"required": True, "min_length": 10}
    if seldom(8):
        request["fields"] = {"change_ticket": {"required": True, "pattern": "^CHG[0-9]{3}$"}}
    if seldom(8):
        request.setdefault("fields", {})["rollback_to"] = {"type": "model_version"}
    if seldom(8):
        request["evidence"] = ["model_card"]
    spec |= {"request": request} if request else {}
    gates = draw(st.lists(_gates(gentle), max_size=1 if gentle else 3, unique_by=lambda gate: gate["id"]))
    spec |= {"gates": gates} if gates else {}
    if seldom():
        spec["gate_defaults"] = draw(
            st.sampled_from([{"on_error": "inconclusive"}, {"on_no_baseline": "pass"}, {"asks": ["group:leads"]}])
        )
    if not seldom(6):
        spec["approvals"] = _people(draw, seldom, some)
    if seldom():
        spec["schedule"] = _schedule(draw)
    rules = [rule["id"] for rule in spec.get("approvals", {}).get("rules", ())]
    if rules and seldom():
        added = {"do": "add_approvers", "rule": draw(st.sampled_from(rules)), "to": some("leads", "risk")}
        spec["escalation"] = [{"after": "2h", "do": "remind"}, {"after": "5h", **added}]
    if seldom(8):
        spec["unsafe_artifact"] = {"waivable_by": some("security", "leads")}
    if draw(st.integers(0, 3)):
        spec["break_glass"] = _glass(draw, some)
    return spec


@st.composite
def _gates(draw: st.DrawFn, gentle: bool) -> Doc:
    asked = draw(st.sampled_from([*STATIC, *STATIC, "webhook", "attestation"]))
    gate: Doc = {"id": f"g{([*STATIC, 'webhook', 'attestation']).index(asked)}"}
    if asked == "webhook":
        gate |= {"webhook": {"url": "https://checks.example/", "secret": "fairness"}, "timeout": "4h"}
    elif asked == "attestation":
        gate |= {"attestation": {"type": "ci", "from": ["user:ci"]}, "timeout": "4h"}
    else:
        gate["cel"] = asked
    kind = draw(st.integers(0, 5))
    if kind == 0 and not gentle:
        gate["never_skip"] = True
    elif kind == 1:
        gate["level"] = "warn"
    elif kind > 2 or gentle:
        gate["waivable_by"] = draw(st.sampled_from([["group:leads"], ["group:risk", "group:leads"]]))
    if kind == 2:
        gate["on_no_baseline"] = draw(st.sampled_from(["pass", "fail", "inconclusive"]))
    return gate


def _people(draw: st.DrawFn, seldom: Any, some: Any) -> Doc:
    rules = []
    for n in range(draw(st.sampled_from([1, 1, 2]))):
        rule = {"id": f"r{n}", "meaning": f"I stand for r{n}", "from": some("reviewers", "risk", "leads")}
        rule["count"] = draw(st.sampled_from([1, 2]))
        if seldom(6):
            rule["when"] = draw(st.sampled_from(WHENS))
        rules.append(rule)
    found: Doc = {"rules": rules}
    if seldom(3):
        found["separation_of_duties"] = {
            "exclude": ["requester", "version.author", "version.committers", "policy.last_editor"]
        }
    if seldom(4):
        found["deny"] = {"count": draw(st.sampled_from([1, 2]))}
        found["deny"] |= {"from": some("risk", "leads")} if seldom(2) else {}
    if not seldom(3):
        found["delegation"] = {"allowed": True, "max": draw(st.sampled_from(["1d", "14d"]))}
    if seldom(5):
        found["valid_for"] = draw(st.sampled_from(["3h", "1d"]))
    if seldom(5):
        found["signature"] = draw(st.sampled_from([{"reauthenticate_within": "5m"}, {"methods": ["webauthn"]}]))
    return found


def _schedule(draw: st.DrawFn) -> Doc:
    found: Doc = {}
    if draw(st.booleans()):
        start, end = draw(st.sampled_from(HOURS))
        days = draw(st.sampled_from(["Mon-Fri", "Mon-Sun", "Fri-Mon", "Tue,Thu-Sat"]))
        zone = draw(st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))
        found["windows"] = [{"tz": zone, "days": days, "from": start, "to": end}]
    if draw(st.booleans()):
        since = draw(st.integers(-10, 40))
        found["freezes"] = [{"name": "a freeze", "tz": "UTC", "from": since, "to": since + draw(st.integers(1, 40))}]
    if draw(st.booleans()) or not found:
        found["min_wait"] = draw(st.sampled_from(["30m", "5h"]))
    return found


def _glass(draw: st.DrawFn, some: Any) -> Doc:
    skips = draw(st.sampled_from([["approvals", "schedule", "gates"], ["approvals", "schedule"], ["approvals"]]))
    review = {"from": some("risk", "leads"), "count": draw(st.sampled_from([1, 2])), "within": "1d"}
    if draw(st.booleans()):
        review["on_overdue"] = draw(st.sampled_from([["page"], ["freeze_model"]]))
    found = {"allowed": ["group:oncall"], "skips": skips, "page": ["service:oncall"], "review": review}
    if draw(st.integers(1, 3)) == 3:
        found["reauthenticate"] = False
    if draw(st.integers(1, 3)) == 3:
        found |= {"reason": {"required": True, "min_length": 10}, "grants_for": "2h"}
    return found


def text(name: str, spec: Doc, now: datetime) -> str:
    """The document, with the dates that count from now."""
    dated = json.loads(json.dumps(spec))
    for freeze in dated.get("schedule", {}).get("freezes", ()):
        for end in ("from", "to"):
            freeze[end] = (now + timedelta(hours=freeze[end])).isoformat(timespec="seconds").replace("+00:00", "Z")
    document = {"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": dated}
    return json.dumps(document)
