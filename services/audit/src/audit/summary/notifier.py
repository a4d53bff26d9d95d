"""What the notifier did."""

from audit.summary.common import names, say
from contracts import notifier


@say.register
def _(m: notifier.SubscriptionCreated) -> str:
    return f"{m.owner} subscribed {m.channel} {m.address} to {_filters(m)}"


@say.register
def _(m: notifier.SubscriptionChanged) -> str:
    return f"{m.changed_by} changed the subscription {m.subscription_id} to {_filters(m)}"


@say.register
def _(m: notifier.SubscriptionPaused) -> str:
    return f"{m.paused_by} paused the subscription {m.subscription_id}"


@say.register
def _(m: notifier.SubscriptionResumed) -> str:
    return f"{m.resumed_by} resumed the subscription {m.subscription_id}"


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


def _filters(m: notifier.SubscriptionCreated | notifier.SubscriptionChanged) -> str:
    models = f" about {m.model}" if m.model != "*" else ""
    about = f" for {names(m.audience)}" if m.audience else ""
    stages = f" of {names(m.stages)}" if m.stages else ""
    return f"{names(m.types)}{models}{stages}{about}" + (f" where {m.cel}" if m.cel else "")
