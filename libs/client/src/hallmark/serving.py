"""Who runs what: reports of servers, use, and what nobody uses any more."""

from collections.abc import Iterator
from typing import Any

from hallmark.catalogue import of
from hallmark.connection import Connection, read
from hallmark.results import ServingStatus, StaleVersion, Use


class Serving(Connection):
    """Every method raises `HallmarkError`."""

    def report_serving(self, model: str, server: str, version: int, state: str, **more: Any) -> None:
        """Says what this server has loaded: `state` is loaded, serving, failed or stopped. `more`: target, detail."""
        body = {"server": server, "target": "Production", "version": version, "state": state, **more}
        self._post("registry", f"{of(model)}/serving", body)

    def serving(self, model: str) -> ServingStatus:
        """What should be served, and what servers say they have loaded, side by side."""
        return read(ServingStatus, self._get("registry", f"{of(model)}/serving"))

    def usage(self, model: str) -> Iterator[Use]:
        """Who resolved or watched which version, how often, and when last."""
        return self._pages("registry", f"{of(model)}/usage", Use)

    def stale(
        self,
        *,
        unused_days: int | None = None,
        metric: str | None = None,
        floor: float | None = None,
        stage: str | None = None,
    ) -> Iterator[StaleVersion]:
        """Versions that nobody used for so many days (30), or whose latest evaluation fell under the floor; and always
        those that were revoked and that a server says it runs (`servers`)."""
        criteria = {"unused_days": unused_days, "metric": metric, "floor": floor, "stage": stage}
        return self._pages("registry", "/v1/stale", StaleVersion, **criteria)

    def archive_stale(
        self, reason: str, *, dry_run: bool = True, include_serving: bool = False, **criteria: Any
    ) -> Iterator[dict[str, Any]]:
        """Archives what `stale` lists under the same criteria; a dry run unless told otherwise. What serves is spared.

        Gives one document for each version: what was done, or why not.
        """
        after = ""
        while True:
            body = {
                "reason": reason,
                "dry_run": dry_run,
                "include_serving": include_serving,
                "after": after,
                **criteria,
            }
            answer = self._post("registry", "/v1/stale/archive", body).json()
            yield from answer["items"]
            if answer["next"] is None:
                return
            body["after"] = answer["next"]

    def serving_keys(self) -> dict[str, Any]:
        """The public keys (JWKS) that verify pins offline: keep them where the server is."""
        keys: dict[str, Any] = self._get("registry", "/v1/keys/serving").json()
        return keys
