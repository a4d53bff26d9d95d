"""Whether a consumer is alive. The broker's ping stays green with a dead one, so this looks at the consumer itself."""

import time
from typing import Any

from prometheus_client import Gauge

from contracts.envelope import now
from contracts.topics import Topic

STALE_AFTER_SECONDS = 60.0
LAG = Gauge("hallmark_consumer_lag", "Records behind the end of the partition", ["service", "topic", "partition"])


class Pulse:
    """When a subscription last got anywhere, and what that says of it."""

    def __init__(self, service: str, topic: Topic) -> None:
        self._service, self._topic = service, topic
        self._unassigned_since = self._tried_at = _clock()

    def assigned(self) -> None:
        self._unassigned_since = _clock()

    def tried(self) -> None:
        """A record, or a batch, was begun, tried again, or done with."""
        self._tried_at = _clock()

    def health(self, subscriber: Any, *, idle: bool) -> dict[str, Any]:
        """Assigned partitions, whether it stands by, seconds since the last sign of life, and whether that is alive."""
        consumer, looping = subscriber.consumer, any(not task.done() for task in subscriber.tasks)
        assigned = sorted(consumer.assignment()) if consumer is not None else []
        if not assigned:
            waiting, standby = _clock() - self._unassigned_since, consumer is not None and _stands_by(consumer)
            alive = waiting < STALE_AFTER_SECONDS or (standby and looping)
            return {"partitions": 0, "standby": standby, "alive": alive, "idle_seconds": round(waiting, 1)}
        fetched = []
        for tp in assigned:
            last = consumer.last_poll_timestamp(tp)
            fetched.append(last / 1000 if last else 0.0)
            end = consumer.highwater(tp)
            if end is not None:
                position = consumer._subscription.subscription.assignment.state_value(tp)
                behind = end - position.position if position is not None and position.has_valid_position else 0
                LAG.labels(self._service, self._topic.name, tp.partition).set(max(behind, 0))
        # A handler that waits for PostgreSQL is alive while it tries: a restart would not help. One that hangs is not.
        age = _clock() - self._tried_at
        if idle:
            fetched_ago = now().timestamp() - max(fetched) if max(fetched) else _clock() - self._unassigned_since
            age = min(age, fetched_ago)
        alive = looping and age < STALE_AFTER_SECONDS
        return {"partitions": len(assigned), "standby": False, "alive": alive, "idle_seconds": round(age, 1)}


def _stands_by(consumer: Any) -> bool:
    """Whether the group gave it nothing to do: there are more members than partitions. It takes over when one goes."""
    return (
        not consumer._closed
        and consumer._coordinator.generation >= 0
        and consumer._subscription.subscription is not None
        and consumer._subscription.subscription.assignment is not None
        and all(consumer.partitions_for_topic(topic) for topic in consumer.subscription())
    )


def _clock() -> float:
    return time.monotonic()
