"""The audit log."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hallmark.audit_results import Explained, Hold, Holds, LeadTime, Retention, Stay
from hallmark.catalogue import of as _model
from hallmark.connection import Connection, read
from hallmark.results import Change, Entered, Tenure, TimelineItem


class Oversight(Connection):
    """Every method raises `HallmarkError`."""

    # -- audit ---------------------------------------------------------------------------------------------------

    def timeline(self, model: str) -> Iterator[TimelineItem]:
        """Everything that happened to a model, oldest first."""
        return self._pages("audit", "/v1/timeline", TimelineItem, model=model)

    def production(
        self, model: str, at: datetime | None = None, *, stage: str = "Production", known_at: datetime | None = None
    ) -> Tenure:
        """Who was in Production, or another stage, at `at` (default: now), since when, and who let it in; with
        `known_at` as the log knew it at that moment."""
        asked: dict[str, Any] = {"at": _iso(at or datetime.now(UTC)), "stage": stage, "known_at": _iso(known_at)}
        return read(Tenure, self._get("audit", f"{_model(model)}/production", **asked))

    def history(self, model: str, stage: str = "Production", *, known_at: datetime | None = None) -> Iterator[Stay]:
        """Every version that was in a stage, oldest first."""
        return self._pages("audit", f"{_model(model)}/history", Stay, stage=stage, known_at=_iso(known_at))

    def changes(
        self, model: str, since: datetime, until: datetime | None = None, *, known_at: datetime | None = None
    ) -> Iterator[Change]:
        """What is different at `until` (default: now) from what was at `since`: stages of versions, and aliases."""
        told = {"since": _iso(since), "until": _iso(until or datetime.now(UTC)), "known_at": _iso(known_at)}
        return self._pages("audit", "/v1/changes", Change, model=model, **told)

    def explain(
        self,
        pin: str | None = None,
        *,
        model: str | None = None,
        at: datetime | None = None,
        target: str = "Production",
        known_at: datetime | None = None,
    ) -> Explained:
        """Which version made a decision, trained on what, let in by whom: by the pin that the server logged with it
        (`hallmark.decision`), or by model, moment (default: now) and target."""
        about = {"pin": pin} if pin is not None else {"model": model, "at": _iso(at), "target": target}
        return read(Explained, self._get("audit", "/v1/explain", known_at=_iso(known_at), **about))

    def lead_times(self, stage: str = "Production", *, model: str | None = None) -> Iterator[LeadTime]:
        """How long each version took from its registration to a stage."""
        return self._pages("audit", "/v1/reports/lead-times", LeadTime, stage=stage, model=model)

    # -- keeping -------------------------------------------------------------------------------------------------

    def holds(self) -> list[Hold]:
        """All legal holds, released ones too."""
        return read(Holds, self._get("audit", "/v1/retention/holds")).items

    def place_hold(
        self,
        reason: str,
        *,
        model: str | None = None,
        everything: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Hold:
        """Nothing of the workspace, of one model, or with `everything` of the whole log is pruned or erased from now
        on; `since` and `until` narrow it by when the log recorded it."""
        place = {} if everything else {"workspace": self.workspace, "model": model}
        body = {"reason": reason, "since": _iso(since), "until": _iso(until), **place}
        return read(Hold, self._post("audit", "/v1/retention/holds", body))

    def release_hold(self, hold_id: str, reason: str) -> Hold:
        path = f"/v1/retention/holds/{quote(hold_id, safe='')}/release"
        return read(Hold, self._post("audit", path, {"reason": reason}))

    def retention(self) -> Retention:
        return read(Retention, self._get("audit", "/v1/retention/policy"))

    def set_retention(self, rules: Sequence[Mapping[str, Any]], reason: str | None = None) -> Retention:
        """`rules`: each a topic, a type ("*" is any) and for how many days at least its records are kept. `reason`: why
        less than a floor of the law is enough."""
        body = {"rules": [dict(rule) for rule in rules], "reason": reason}
        return read(Retention, self._put("audit", "/v1/retention/policy", body))

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


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None
