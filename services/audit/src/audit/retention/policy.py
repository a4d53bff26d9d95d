"""What a retention policy must say. Pure.

Floors: automatically generated logs 6 months (EU AI Act, articles 19 and 26), technical documentation 10 years
(article 18). A policy below a floor needs a reason: not every model is a high-risk system.
"""

import json
from collections.abc import Iterable, Sequence

from audit.domain import LOGGED
from contracts import approval, audit, notifier, registry
from contracts.audit import RetentionRule
from contracts.topics import APPROVAL_EVENTS, REGISTRY_EVENTS

ANY = "*"
LOG_DAYS = 184
DOCUMENT_DAYS = 3_653
DOCUMENTATION = (
    (REGISTRY_EVENTS.name, registry.ModelRegistered.TYPE),
    (REGISTRY_EVENTS.name, registry.ModelUpdated.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionRegistered.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionVerified.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionEvaluated.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionNoted.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionDescribed.TYPE),
    (REGISTRY_EVENTS.name, registry.VersionScanned.TYPE),
    (APPROVAL_EVENTS.name, approval.EvidenceAttached.TYPE),
)
TOPICS = frozenset(topic.name for topic in LOGGED)
TYPES = frozenset(
    message.TYPE
    for message in (*registry.COMMANDS, *registry.EVENTS, *approval.EVENTS, *notifier.EVENTS, *audit.EVENTS)
)


def age(rules: Iterable[RetentionRule], topic: str, kind: str) -> int:
    """For how many days such records are kept at least: the longest of all rules that are about them."""
    return max((r.days for r in rules if r.topic in (ANY, topic) and r.type in (ANY, kind)), default=0)


def mistakes(rules: Sequence[RetentionRule]) -> list[str]:
    """Why they are no policy."""
    found = [f"there is no topic {r.topic}" for r in rules if r.topic not in (ANY, *TOPICS)]
    found += [f"there is no event type {r.type}" for r in rules if r.type not in (ANY, *TYPES)]
    if not any(r.topic == r.type == ANY for r in rules):
        found.append('a rule for topic "*" and type "*" must say how long everything else is kept')
    return found


def below_floors(rules: Sequence[RetentionRule]) -> list[str]:
    """What is kept for less than the law asks of high-risk systems."""
    found = [f"{r.topic} {r.type}: {r.days} days, the floor is {LOG_DAYS}" for r in rules if r.days < LOG_DAYS]
    for topic, kind in DOCUMENTATION:
        days = age(rules, topic, kind)
        if days < DOCUMENT_DAYS:
            found.append(f"{kind} is technical documentation: {days} days, the floor is {DOCUMENT_DAYS}")
    return found


def marks_of(names: Iterable[str]) -> list[bytes]:
    """Byte strings of which every leaf that has one of the names has one, however its JSON spells it."""
    spelt = {json.dumps(name, ensure_ascii=ascii_only)[1:-1].encode() for name in names for ascii_only in (True, False)}
    return sorted(spelt | {name.encode() for name in names})
