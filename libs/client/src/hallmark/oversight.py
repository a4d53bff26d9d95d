"""The audit log, and notifications."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel

from hallmark.catalogue import of as _model
from hallmark.connection import Connection, read
from hallmark.results import Change, Entered, Subscription, Tenure, TimelineItem


class Oversight(Connection):
    """Every method raises `HallmarkError`."""

    # -- audit ---------------------------------------------------------------------------------------------------

    def timeline(self, model: str) -> Iterator[TimelineItem]:
        """Everything that happened to a model, oldest first."""
        return self._pages("audit", "/v1/timeline", TimelineItem, model=model)

    def production(self, model: str, at: datetime | None = None) -> Tenure:
        """Who was in Production at `at` (default: now), since when, and who let it in."""
        moment = (at or datetime.now(UTC)).astimezone(UTC)
        return read(Tenure, self._get("audit", f"{_model(model)}/production", at=moment.isoformat()))

    def changes(self, model: str, since: datetime, until: datetime | None = None) -> Iterator[Change]:
        """What is different at `until` (default: now) from what was at `since`: stages of versions, and aliases."""
        moments = {"since": since, "until": until or datetime.now(UTC)}
        told = {name: moment.astimezone(UTC).isoformat() for name, moment in moments.items()}
        return self._pages("audit", "/v1/changes", Change, model=model, **told)

    def four_eyes(self, model: str | None = None, finding: str | None = None) -> Iterator[Entered]:
        """Who approved, waived or broke the glass for what got into gated stages and protected aliases, and what was
        refused; only those with a `finding`, such as violation, when it is given."""
        return self._pages("audit", "/v1/reports/four-eyes", Entered, model=model, finding=finding)

    def checkpoint(self) -> str:
        """The audit log's latest signed checkpoint (C2SP tlog-checkpoint)."""
        return self._get("audit", "/checkpoint").text

    def verifier_key(self) -> str:
        """The line that names and holds the log's Ed25519 key; keep it outside, it is what you verify with."""
        return self.verifier_keys()[0]

    def verifier_keys(self) -> list[str]:
        """The lines of all of the log's keys: Ed25519, then ML-DSA-44 where it has one."""
        return self._get("audit", "/keys").text.splitlines()

    def export_log(self, target: str | Path) -> Path:
        """Writes the whole log, with its checkpoint, for `hallmark audit verify`."""
        path = Path(target)
        self._save("audit", "/v1/log/export", path)
        return path

    def evidence_bundle(self, model: str, version: int, target: str | Path, *, since: int | None = None) -> Path:
        """Writes all that the log knows of a version, with proofs, as a zip. `since`: the size of a checkpoint that you
        kept; the bundle then proves that the log extends it."""
        path = Path(target)
        query = f"?workspace={quote(self.workspace, safe='')}" + ("" if since is None else f"&since={since}")
        self._save("audit", f"{_model(model)}/versions/{version}/evidence{query}", path)
        return path

    # -- notifications -------------------------------------------------------------------------------------------

    def subscribe(
        self,
        channel: Literal["slack", "email", "webhook"],
        address: str,
        *,
        types: Sequence[str] = (),
        model: str = "*",
        secret: str | None = None,
        audience: Sequence[str] = (),
        retry_seconds: Sequence[float] = (),
    ) -> Subscription:
        """Has every matching event delivered to `address`. Webhooks are signed (Standard Webhooks) with `secret`.

        `types` are changes of stages by default. With an `audience` (`group:risk`, `user:ann`, `service:oncall`,
        `channel:ml`) only what addresses one of these names comes, of any type by default. `retry_seconds` are the
        pauses after failed tries, instead of the service's own.
        """
        body: dict[str, Any] = {"channel": channel, "address": address, "types": list(types), "model": model}
        body |= {"workspace": self.workspace} | ({"secret": secret} if secret else {})
        body |= {"audience": list(audience)} if audience else {}
        body |= {"retry_seconds": list(retry_seconds)} if retry_seconds else {}
        return read(Subscription, self._post("notifier", "/v1/subscriptions", body))

    def subscriptions(self) -> Iterator[Subscription]:
        return self._pages("notifier", "/v1/subscriptions", Subscription)

    def unsubscribe(self, subscription_id: str) -> None:
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}"
        self._call("notifier", "DELETE", path)

    def deliveries(self, subscription_id: str | None = None, status: str | None = None) -> Iterator[dict[str, Any]]:
        for item in self._pages("notifier", "/v1/deliveries", _Any, subscription=subscription_id, status=status):
            yield item.model_dump(mode="json")


class _Any(BaseModel, extra="allow"):
    pass
