"""Notifications: who hears of what, where, and what was sent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel

from hallmark.connection import Connection, read
from hallmark.results import (
    FilterPreview,
    Inhibition,
    RenderedTemplate,
    Rotation,
    Silence,
    Subscription,
    Template,
    WebhookKey,
    WebhookKeys,
)

PATH = "/v1/subscriptions"
ChannelName = Literal["slack", "email", "webhook", "pagerduty", "teams", "apprise"]


class Notifications(Connection):
    """Every method raises `HallmarkError`."""

    def subscribe(
        self,
        channel: ChannelName,
        address: str,
        *,
        types: Sequence[str] = (),
        model: str = "*",
        secret: str | None = None,
        format: Literal["cloudevents", "databricks", "mlflow", "sagemaker", "slack"] = "cloudevents",  # noqa: A002
        audience: Sequence[str] = (),
        stages: Sequence[str] = (),
        cel: str | None = None,
        retry_seconds: Sequence[float] = (),
        order: Literal["fifo", "any"] = "fifo",
        bundling: Mapping[str, Any] | None = None,
    ) -> Subscription:
        """Has every matching event delivered to `address`. Webhooks are signed (Standard Webhooks) with `secret`. A
        mailbox that your token does not prove to be yours is asked first: the subscription is `unconfirmed` until then.

        `types` are changes of stages by default. With an `audience` (`group:risk`, `user:ann`, `service:oncall`,
        `channel:ml`) only what addresses one of these names comes, of any type by default. With `stages` only what
        enters or leaves one of these comes, with `cel` only what this expression holds for. `retry_seconds` are the
        pauses after failed tries, instead of the service's own; with the order `any` an event that fails does not hold
        up the later ones of its model. `format`: what a webhook's body looks like. `bundling`: events go out together,
        in groups (`{"mode": "grouped", "by": ["model"]}`) or in a digest (`{"mode": "digest", "at": "09:00", "zone":
        "Europe/Berlin"}`).
        """
        body: dict[str, Any] = {"channel": channel, "address": address, **self._filter(types, model, audience)}
        body |= _narrower(stages, cel) | ({"secret": secret} if secret else {})
        body |= {"format": format} if format != "cloudevents" else {}
        body |= {"retry_seconds": list(retry_seconds)} if retry_seconds else {}
        body |= {"order": order} if order != "fifo" else {}
        body |= {"bundling": dict(bundling)} if bundling else {}
        return read(Subscription, self._post("notifier", PATH, body))

    def preview_subscription(
        self,
        *,
        types: Sequence[str] = (),
        model: str = "*",
        audience: Sequence[str] = (),
        stages: Sequence[str] = (),
        cel: str | None = None,
        last: int = 500,
    ) -> FilterPreview:
        """A dry run: what such a subscription would have matched of the `last` events that you may read."""
        body: dict[str, Any] = {**self._filter(types, model, audience), **_narrower(stages, cel), "last": last}
        return read(FilterPreview, self._post("notifier", f"{PATH}/preview", body))

    def _filter(self, types: Sequence[str], model: str, audience: Sequence[str]) -> dict[str, Any]:
        body = {"types": list(types), "model": model, "workspace": self.workspace}
        return body | ({"audience": list(audience)} if audience else {})

    def subscriptions(self) -> Iterator[Subscription]:
        return self._pages("notifier", PATH, Subscription)

    def subscription(self, subscription_id: str) -> Subscription:
        return read(Subscription, self._get("notifier", _of(subscription_id)))

    def edit_subscription(self, subscription_id: str, **changes: Any) -> Subscription:
        """Other filters for the events that come from now on: `types`, `model`, `audience`, `stages`, `cel`. An empty
        list or text takes a filter away; what is left out stays. `bundling` as in `subscribe`; None: each goes out
        alone."""
        body = changes | ({"bundling": {"mode": "alone"}} if changes.get("bundling", "") is None else {})
        return read(Subscription, self._patch("notifier", _of(subscription_id), body))

    def ask_confirmation(self, subscription_id: str) -> Subscription:
        """Mails another link to a mailbox that has not been confirmed yet."""
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/confirmation", {}))

    def pause_subscription(self, subscription_id: str) -> Subscription:
        """Nothing is sent any more; what comes is kept until it is resumed."""
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/pause", {}))

    def resume_subscription(self, subscription_id: str) -> Subscription:
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/resume", {}))

    def unsubscribe(self, subscription_id: str) -> None:
        self._call("notifier", "DELETE", _of(subscription_id))

    def replay_delivery(self, delivery_id: str) -> dict[str, Any]:
        """Sends one delivery again, under the same id."""
        path = f"/v1/deliveries/{quote(delivery_id, safe='')}/replay"
        return read(_Any, self._post("notifier", path, {})).model_dump(mode="json")

    def replay(
        self,
        subscription_id: str,
        which: Literal["failed", "missing", "all"],
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        types: Sequence[str] = (),
        model: str = "*",
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Sends again, under the same ids, what failed, what was never sent (to a new subscription: the whole history),
        or all, of the events that happened `since` and `before`. Gives how many deliveries that are; with `dry_run`
        would be. `progress` is told how many events were looked at and how many deliveries that gave."""
        body: dict[str, Any] = {"which": which, "types": list(types), "model": model, "dry_run": dry_run}
        body |= {name: moment.isoformat() for name, moment in (("since", since), ("before", before)) if moment}
        looked = count = 0
        after: int | None = 0
        while after is not None:
            page = read(
                _Any, self._post("notifier", f"{_of(subscription_id)}/replay", body | {"after": after})
            ).model_dump()
            looked, count, after = looked + page["looked_at"], count + page["deliveries"], page["next"]
            if progress is not None:
                progress(looked, count)
        return count

    def reconcile_deliveries(self, since: datetime | None = None) -> dict[str, Any]:
        """The proof that every event (taken in `since`) has a delivery for each subscription that wanted it."""
        body = {"since": since.isoformat()} if since else {}
        return read(_Any, self._post("notifier", "/v1/reconciliation", body)).model_dump(mode="json")

    def subscription_health(self, subscription_id: str) -> dict[str, Any]:
        """Since when and how often in a row its endpoint has only failed, and until when nothing is sent there."""
        return read(_Any, self._get("notifier", f"{_of(subscription_id)}/health")).model_dump()

    def enable_subscription(self, subscription_id: str) -> Subscription:
        """One that was disabled is sent to again, from now on."""
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/enable", {}))

    def rotate_secret(self, subscription_id: str, *, at_once: bool = False) -> Rotation:
        """A new secret for a webhook, shown this once; the former one signs too for a while, unless `at_once`."""
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}/secret"
        return read(Rotation, self._post("notifier", path, {"at_once": at_once}))

    def webhook_keys(self) -> list[WebhookKey]:
        """The public keys that webhooks are signed with, for `hallmark.webhooks.Receiver`."""
        return read(WebhookKeys, self._get("notifier", "/v1/webhook-keys")).keys

    # -- quiet ---------------------------------------------------------------------------------------------------

    def silence(
        self,
        ends_at: datetime,
        comment: str,
        *,
        types: Sequence[str] = (),
        model: str = "*",
        stages: Sequence[str] = (),
        cel: str | None = None,
        everybody: bool = False,
        starts_at: datetime | None = None,
    ) -> Silence:
        """Until `ends_at` nothing of these events is sent to your subscriptions, or with `everybody` to none of the
        workspace. What is kept from somebody has a delivery of the status `silenced`."""
        body = {"workspace": self.workspace, "model": model, "comment": comment, "everybody": everybody}
        body |= _narrower(stages, cel) | ({"types": list(types)} if types else {})
        body |= {"ends_at": ends_at.isoformat(), "starts_at": starts_at.isoformat() if starts_at else None}
        return read(Silence, self._post("notifier", "/v1/silences", body))

    def silences(self, *, ended: bool = False) -> Iterator[Silence]:
        """Everybody's and yours; with `ended` also those that are over."""
        return self._pages("notifier", "/v1/silences", Silence, ended=ended or None)

    def expire_silence(self, silence_id: str) -> Silence:
        path = f"/v1/silences/{quote(silence_id, safe='')}/expire"
        return read(Silence, self._post("notifier", path, {}))

    def inhibit(
        self,
        source_types: Sequence[str],
        target_types: Sequence[str],
        comment: str,
        *,
        until_types: Sequence[str] = (),
        seconds: int | None = None,
        equal: Sequence[str] = ("model",),
        cel: str | None = None,
    ) -> Inhibition:
        """A rule: after an event of the `source_types` (for which `cel` holds), until one of the `until_types` or for
        so many seconds, nothing of the `target_types` is sent whose `equal` labels (workspace, model, version, type,
        request) are the same."""
        body: dict[str, Any] = {"workspace": self.workspace, "source_types": list(source_types)}
        body |= {
            "target_types": list(target_types),
            "until_types": list(until_types),
            "equal": list(equal),
            "comment": comment,
        }
        body |= {"seconds": seconds, "cel": cel}
        return read(Inhibition, self._post("notifier", "/v1/inhibitions", body))

    def inhibitions(self, *, ended: bool = False) -> Iterator[Inhibition]:
        return self._pages("notifier", "/v1/inhibitions", Inhibition, ended=ended or None)

    def remove_inhibition(self, inhibition_id: str) -> None:
        self._call("notifier", "DELETE", f"/v1/inhibitions/{quote(inhibition_id, safe='')}")

    # -- templates -----------------------------------------------------------------------------------------------

    def publish_template(self, channel: ChannelName, types: str, parts: Mapping[str, str]) -> Template:
        """The words for events of these types (a pattern) in a channel, in force at once: Jinja2 over `notice`, `event`
        and `data`. Each channel has the part `text`, e-mail also `subject` and `html`, Apprise `subject`."""
        return read(Template, self._post("notifier", "/v1/templates", self._template(channel, types, parts)))

    def preview_template(
        self, channel: ChannelName, types: str, parts: Mapping[str, str], *, event_id: str | None = None
    ) -> RenderedTemplate:
        """What it makes of this past event, or of the newest of these types that you may read."""
        body = self._template(channel, types, parts) | {"event_id": event_id}
        return read(RenderedTemplate, self._post("notifier", "/v1/templates/preview", body))

    def _template(self, channel: str, types: str, parts: Mapping[str, str]) -> dict[str, Any]:
        return {"workspace": self.workspace, "channel": channel, "types": types, "parts": dict(parts)}

    def templates(self, *, every: bool = False) -> Iterator[Template]:
        """Those in force; with `every`, all revisions, the newest first."""
        return self._pages("notifier", "/v1/templates", Template, every=every or None)

    def withdraw_template(self, channel: ChannelName, types: str) -> None:
        """The built-in words again."""
        self._call("notifier", "DELETE", "/v1/templates", params={"channel": channel, "types": types})

    # -- deliveries ----------------------------------------------------------------------------------------------

    def deliveries(
        self, subscription_id: str | None = None, status: str | None = None, message: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """`message`: a delivery that told of many events; theirs are listed."""
        chosen = {"subscription": subscription_id, "status": status, "held_by": message}
        for item in self._pages("notifier", "/v1/deliveries", _Any, **chosen):
            yield item.model_dump(mode="json")


class _Any(BaseModel, extra="allow"):
    pass


def _of(subscription_id: str) -> str:
    return f"{PATH}/{quote(subscription_id, safe='')}"


def _narrower(stages: Sequence[str], cel: str | None) -> dict[str, Any]:
    return ({"stages": list(stages)} if stages else {}) | ({"cel": cel} if cel else {})
