"""What the notifier did."""

from audit.summary.common import names, say
from contracts import notifier


@say.register
def _(m: notifier.SubscriptionCreated) -> str:
    about = f" for {names(m.audience)}" if m.audience else ""
    stages = f" of {names(m.stages)}" if m.stages else ""
    where = f" where {m.cel}" if m.cel else ""
    return f"{m.owner} subscribed {m.channel} {m.address} to {names(m.types)}{stages}{about}{where}"


@say.register
def _(m: notifier.SubscriptionRemoved) -> str:
    return f"{m.removed_by} removed the subscription {m.subscription_id}"


@say.register
def _(m: notifier.SubscriptionDisabled) -> str:
    return f"The subscription {m.subscription_id} was disabled: {m.reason}"


@say.register
def _(m: notifier.SecretRotated) -> str:
    former = f"; the former one counts until {m.former_until.isoformat()}" if m.former_until else ""
    return f"{m.rotated_by} gave the subscription {m.subscription_id} a new secret{former}"


@say.register
def _(m: notifier.DeliverySucceeded) -> str:
    return f"{m.event_type} was delivered to the subscription {m.subscription_id} at try {m.attempt}"


@say.register
def _(m: notifier.DeliveryFailed) -> str:
    return f"{m.event_type} did not reach the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"


@say.register
def _(m: notifier.DeliveryDead) -> str:
    return f"{m.event_type} was given up for the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"
