"""The audit log."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from hallmark.catalogue import of as _model
from hallmark.connection import Connection, read
from hallmark.results import Change, Entered, Tenure, TimelineItem


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
