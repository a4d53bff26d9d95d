"""Notifications: who hears of what, where, and what was sent."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel

from hallmark.connection import Connection, read
from hallmark.results import FilterPreview, Rotation, Subscription, WebhookKey, WebhookKeys

PATH = "/v1/subscriptions"


class Notifications(Connection):
    """Every method raises `HallmarkError`."""

    def subscribe(
        self,
        channel: Literal["slack", "email", "webhook", "pagerduty", "teams", "apprise"],
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
    ) -> Subscription:
        """Has every matching event delivered to `address`. Webhooks are signed (Standard Webhooks) with `secret`.

        `types` are changes of stages by default. With an `audience` (`group:risk`, `user:ann`, `service:oncall`,
        `channel:ml`) only what addresses one of these names comes, of any type by default. With `stages` only what
        enters or leaves one of these comes, with `cel` only what this expression holds for. `retry_seconds` are the
        pauses after failed tries, instead of the service's own; with the order `any` an event that fails does not hold
        up the later ones of its model. `format`: what a webhook's body looks like.
        """
        body: dict[str, Any] = {"channel": channel, "address": address, **self._filter(types, model, audience)}
        body |= _narrower(stages, cel) | ({"secret": secret} if secret else {})
        body |= {"format": format} if format != "cloudevents" else {}
        body |= {"retry_seconds": list(retry_seconds)} if retry_seconds else {}
        body |= {"order": order} if order != "fifo" else {}
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
        list or text takes a filter away; what is left out stays."""
        return read(Subscription, self._patch("notifier", _of(subscription_id), changes))

    def pause_subscription(self, subscription_id: str) -> Subscription:
        """Nothing is sent any more; what comes is kept until it is resumed."""
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/pause", {}))

    def resume_subscription(self, subscription_id: str) -> Subscription:
        return read(Subscription, self._post("notifier", f"{_of(subscription_id)}/resume", {}))

    def unsubscribe(self, subscription_id: str) -> None:
        self._call("notifier", "DELETE", _of(subscription_id))

    def rotate_secret(self, subscription_id: str, *, at_once: bool = False) -> Rotation:
        """A new secret for a webhook, shown this once; the former one signs too for a while, unless `at_once`."""
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}/secret"
        return read(Rotation, self._post("notifier", path, {"at_once": at_once}))

    def webhook_keys(self) -> list[WebhookKey]:
        """The public keys that webhooks are signed with, for `hallmark.webhooks.Receiver`."""
        return read(WebhookKeys, self._get("notifier", "/v1/webhook-keys")).keys

    def deliveries(self, subscription_id: str | None = None, status: str | None = None) -> Iterator[dict[str, Any]]:
        for item in self._pages("notifier", "/v1/deliveries", _Any, subscription=subscription_id, status=status):
            yield item.model_dump(mode="json")


class _Any(BaseModel, extra="allow"):
    pass


def _of(subscription_id: str) -> str:
    return f"{PATH}/{quote(subscription_id, safe='')}"


def _narrower(stages: Sequence[str], cel: str | None) -> dict[str, Any]:
    return ({"stages": list(stages)} if stages else {}) | ({"cel": cel} if cel else {})
