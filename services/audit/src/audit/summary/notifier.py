"""What the notifier did."""

from audit.summary.common import line, names, say
from contracts import notifier


@say.register
def _(m: notifier.SubscriptionCreated) -> str:
    asked = "" if m.confirmed else "; its mailbox is asked first"
    return f"{m.owner} subscribed {m.channel} {m.address} to {_filters(m)}{asked}"


@say.register
def _(m: notifier.ConfirmationAsked) -> str:
    return f"{m.asked_by} had the mailbox of the subscription {m.subscription_id} asked whether it wants the mail"


@say.register
def _(m: notifier.SubscriptionConfirmed) -> str:
    return f"Whoever reads the mailbox of the subscription {m.subscription_id} confirmed it"


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
def _(m: notifier.SubscriptionEnabled) -> str:
    return f"{m.enabled_by} enabled the subscription {m.subscription_id} again"


@say.register
def _(m: notifier.SubscriptionFaltered) -> str:
    return f"The subscription {m.subscription_id} has only failed since {m.since:%Y-%m-%d %H:%M} UTC: {m.detail}"


@say.register
def _(m: notifier.SubscriptionReplayed) -> str:
    return f"{m.replayed_by} had {m.deliveries} deliveries ({m.which}) of the subscription {m.subscription_id} repeated"


@say.register
def _(m: notifier.DeliveriesReconciled) -> str:
    return f"Of {m.checked} deliveries of {m.events} events {m.unaccounted} are unaccounted for"


@say.register
def _(m: notifier.DeliverySucceeded) -> str:
    return f"{m.event_type} was delivered to the subscription {m.subscription_id} at try {m.attempt}"


@say.register
def _(m: notifier.DeliveryFailed) -> str:
    return f"{m.event_type} did not reach the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"


@say.register
def _(m: notifier.DeliveryDenied) -> str:
    return f"{m.event_type} was kept from the subscription {m.subscription_id}: {m.detail}"


@say.register
def _(m: notifier.OwnerSeen) -> str:
    return f"A token of {m.owner} told that they are in {names(m.groups) or 'no group'}"


@say.register
def _(m: notifier.DeliveryDead) -> str:
    return f"{m.event_type} was given up for the subscription {m.subscription_id} at try {m.attempt}: {m.detail}"


@say.register
def _(m: notifier.GroupComposed) -> str:
    of = f" of {m.labels}" if m.labels else ""
    return f"One message about {m.count} events{of} went to the subscription {m.subscription_id}"


@say.register
def _(m: notifier.TemplatePublished) -> str:
    return (
        f"{m.published_by} published revision {m.revision} of the {m.channel} template for {m.types} in {m.workspace}"
    )


@say.register
def _(m: notifier.TemplateWithdrawn) -> str:
    return f"{m.withdrawn_by} withdrew the {m.channel} template for {m.types} in {m.workspace}"


@say.register
def _(m: notifier.SilenceCreated) -> str:
    whose = f"the subscriptions of {m.owner}" if m.owner else f"everybody in {m.workspace}"
    span = f"from {m.starts_at.isoformat()} until {m.ends_at.isoformat()}"
    return f"{m.author} silenced {_filters(m)} for {whose} {span}: {line(m.comment)}"


@say.register
def _(m: notifier.SilenceExpired) -> str:
    return f"{m.expired_by} ended the silence {m.silence_id}"


@say.register
def _(m: notifier.InhibitionCreated) -> str:
    rule = f"{names(m.source_types)} hushes {names(m.target_types)} of the same {names(m.equal) or 'workspace'}"
    return f"{m.author} made a rule in {m.workspace}: {rule}: {line(m.comment)}"


@say.register
def _(m: notifier.InhibitionRemoved) -> str:
    return f"{m.removed_by} removed the rule {m.inhibition_id}"


def _filters(m: notifier.SubscriptionCreated | notifier.SubscriptionChanged | notifier.SilenceCreated) -> str:
    models = f" about {m.model}" if m.model != "*" else ""
    audience = () if isinstance(m, notifier.SilenceCreated) else m.audience
    about = f" for {names(audience)}" if audience else ""
    stages = f" of {names(m.stages)}" if m.stages else ""
    return f"{names(m.types)}{models}{stages}{about}" + (f" where {m.cel}" if m.cel else "")
