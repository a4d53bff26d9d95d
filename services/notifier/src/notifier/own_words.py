"""Words for what the notifier says of itself. Pure."""

from contracts.envelope import Envelope
from contracts.notifier import DeliveryDead, SubscriptionDisabled, SubscriptionFaltered
from contracts.payload import Message
from notifier.approval_words import moment
from notifier.notices import Notice


def of_own(event: Message, envelope: Envelope) -> Notice | None:
    """None for what it has no words for."""
    match event:
        case DeliveryDead():
            return Notice(
                f"{envelope.subject}: {event.event_type} could not be delivered, after {event.attempt} tries",
                reason=event.detail,
                facts=(("Subscription", event.subscription_id), ("Delivery", event.delivery_id)),
            )
        case SubscriptionFaltered():
            return Notice(
                f"The endpoint of a subscription has only failed since {moment(event.since)};"
                f" it is disabled on {moment(event.disables_at)}",
                reason=event.detail,
                facts=(("Subscription", event.subscription_id), ("Of that time", f"{event.percent} % are over")),
            )
        case SubscriptionDisabled():
            return Notice(
                "A subscription was disabled; nothing is sent there any more",
                reason=event.reason,
                facts=(("Subscription", event.subscription_id),),
            )
    return None
