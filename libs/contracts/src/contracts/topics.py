"""Every topic, in one table. `python -m kit.topics` applies it to a cluster; auto-creation is off."""

from dataclasses import dataclass

DAY_MS = 86_400_000
FOREVER = -1


@dataclass(frozen=True)
class Topic:
    """`writer` is the one service that writes it (None: any producer); `readers` are the services that consume it."""

    name: str
    writer: str | None
    readers: tuple[str, ...]
    partitions: int = 6
    retention_ms: int = FOREVER

    def dead_letter(self, service: str) -> str:
        return f"{self.name}.{service}.dlt"


REGISTRY_COMMANDS = Topic(
    "hallmark.registry.commands", writer=None, readers=("registry", "audit"), retention_ms=30 * DAY_MS
)
REGISTRY_EVENTS = Topic("hallmark.registry.events", writer="registry", readers=("approval", "audit", "notifier"))
APPROVAL_EVENTS = Topic("hallmark.approval.events", writer="approval", readers=("registry", "audit", "notifier"))
NOTIFIER_EVENTS = Topic("hallmark.notifier.events", writer="notifier", readers=("audit",), retention_ms=90 * DAY_MS)
AUDIT_EVENTS = Topic("hallmark.audit.events", writer="audit", readers=("audit", "notifier"), partitions=1)

TOPICS = (REGISTRY_COMMANDS, REGISTRY_EVENTS, APPROVAL_EVENTS, NOTIFIER_EVENTS, AUDIT_EVENTS)


@dataclass(frozen=True)
class NewTopic:
    """What the cluster is asked for."""

    name: str
    partitions: int
    retention_ms: int


def all_topics(prefix: str = "") -> list[NewTopic]:
    """Every topic and dead-letter twin, with a deployment's prefix."""
    found = []
    for topic in TOPICS:
        found.append(NewTopic(prefix + topic.name, topic.partitions, topic.retention_ms))
        found += [NewTopic(prefix + topic.dead_letter(reader), 1, FOREVER) for reader in topic.readers]
    return found
