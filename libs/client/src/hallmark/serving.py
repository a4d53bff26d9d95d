"""Who runs what: reports of servers, use, and what nobody uses any more."""

import time
from collections.abc import Iterator
from typing import Any

from hallmark.catalogue import of
from hallmark.connection import Connection, read
from hallmark.results import Rollout, ServingStatus, StaleVersion, Use

LOOK_SECONDS = 0.5


class Serving(Connection):
    """Every method raises `HallmarkError`."""

    def report_serving(self, model: str, server: str, version: int, state: str, **more: Any) -> None:
        """Says what this server has loaded: `state` is loaded, serving, failed or stopped. `more`: target, detail."""
        body = {"server": server, "target": "Production", "version": version, "state": state, **more}
        self._post("registry", f"{of(model)}/serving", body)

    def serving(self, model: str) -> ServingStatus:
        """What should be served, and what servers say they have loaded, side by side."""
        return read(ServingStatus, self._get("registry", f"{of(model)}/serving"))

    def wait_until_served(
        self, model: str, target: str = "Production", *, share: float = 1.0, seconds: float
    ) -> Rollout:
        """Looks until that share of the servers that report on `target` (`Production`, `@champion`) run its version.

        `reached` is false when the time is over; without any server it is never reached.
        """
        deadline = time.monotonic() + seconds
        while True:
            told = next((t for t in self.serving(model).targets if t["target"].lower() == target.lower()), None)
            servers = [server for server in (told or {}).get("actual", ()) if server["state"] != "stopped"]
            good = sum(server["in_step"] for server in servers)
            version = ((told or {}).get("desired") or {}).get("version")
            reached = version is not None and bool(servers) and good >= share * len(servers)
            if reached or time.monotonic() >= deadline:
                return Rollout(target=target, version=version, servers=len(servers), in_step=good, reached=reached)
            time.sleep(min(LOOK_SECONDS, max(deadline - time.monotonic(), 0)))

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
