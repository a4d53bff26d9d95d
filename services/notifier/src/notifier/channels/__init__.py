"""How a delivery leaves the house. Every channel answers with an `Outcome` and raises for nothing a receiver does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from contracts.envelope import Envelope
from contracts.notifier import Format
from notifier.retrying import Outcome


@dataclass(frozen=True)
class Parcel:
    """One try: the event, where it goes (in full), and what signs it. `formers` are secrets that were rotated away, and
    sign too for a while. `unsubscribe`: what a link in a mail proves with that it is from that mail. `worded`: its
    parts, where a template has made them. `repr` shows neither address nor secret."""

    delivery_id: str
    subscription_id: str
    envelope: Envelope
    address: str
    secret: str | None = None
    formers: tuple[str, ...] = ()
    format: Format = Format.CLOUDEVENTS
    unsubscribe: str | None = None
    worded: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Parcel({self.delivery_id})"


class Sender(Protocol):
    async def send(self, parcel: Parcel) -> Outcome: ...
