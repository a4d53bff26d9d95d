"""Evidence: files and links that speak for a version, and what checks of it found."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urljoin

from pydantic import Field

from hallmark import artifacts
from hallmark.approval_results import Evidence
from hallmark.connection import Connection, read
from hallmark.download import fetch
from hallmark.errors import HallmarkError
from hallmark.http import check
from hallmark.results import Result
from hallmark.upload import Offer, Uploader

Finding = Literal["pass", "fail", "inconclusive"]


class _Address(Result):
    """How the service wants a file: `present` (it has it), or `single` (PUT it to `url` with these `headers`)."""

    state: Literal["present", "single"]
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)


class EvidenceFiles(Connection):
    """Every method raises `HallmarkError`."""

    def evidence(self, model: str, version: int) -> Iterator[Evidence]:
        """What was attached to a version, the latest first; the attestations of checks too."""
        return self._pages("approval", "/v1/evidence", Evidence, model=model, version=version)

    def piece_of_evidence(self, evidence_id: str) -> Evidence:
        return read(Evidence, self._get("approval", _of(evidence_id)))

    def attach_evidence(
        self,
        model: str,
        version: int,
        type_: str,
        title: str,
        *,
        file: str | Path | None = None,
        url: str | None = None,
        result: Finding | None = None,
        detail: str = "",
        media_type: str | None = None,
        progress: artifacts.Progress | None = None,
    ) -> Evidence:
        """Attaches a file, a link or both. With a `result` it is an attestation: what a check, of a CI job say, found.

        The file goes straight to the object store and is kept by its SHA-256. `progress` is called with the number of
        bytes sent since the last call.

        Raises:
            HallmarkError: also `no-such-file`, `special-file`, `unreadable-file`, `file-changed`, `upload-failed`,
                `evidence-mismatch`.
        """
        stored = self._upload(Path(file), media_type, progress) if file is not None else {}
        body = {
            "workspace": self.workspace,
            "model": model,
            "version": version,
            "type": type_,
            "title": title,
            "url": url,
            "result": result,
            "detail": detail or None,
            **stored,
        }
        return read(Evidence, self._post_about_version("/v1/evidence", body))

    def save_evidence(self, evidence: Evidence, target: str | Path) -> Path:
        """Writes the file of some evidence, which appears only when it is complete and has the recorded SHA-256.

        Raises:
            HallmarkError: also `no-file` (it is a link, or a finding alone), `digest-mismatch`, `download-failed`.
        """
        if evidence.digest is None:
            where = f"; it is at {evidence.url}" if evidence.url else ""
            raise HallmarkError("no-file", f"{evidence.title!r} has no file{where}")
        asked = f"{self._base('approval')}{_of(evidence.evidence_id)}/file"
        response = self.http.send("GET", asked, headers=self._authorization())
        if not response.is_redirect:
            check(response)
            raise HallmarkError("unexpected-answer", f"{asked} answered {response.status_code}, not an address")
        # The store gets its own address only, never the caller's token.
        address = urljoin(asked, response.headers["location"])
        return fetch(self.http, address, evidence.digest, Path(target))

    def _upload(self, path: Path, media_type: str | None, progress: artifacts.Progress | None) -> dict[str, Any]:
        """What is recorded of the file, once the store has it."""
        if path.is_dir():
            raise HallmarkError("special-file", f"{path} is a directory; pack it into one file first")
        made, files = artifacts.survey(path, media_type)

        def ask(wanted: Sequence[Mapping[str, Any]]) -> list[Offer]:
            return [self._offer(one, made.media_type) for one in wanted]

        Uploader(self.http, ask, lambda _: None, progress).send(files)
        return {"digest": made.digest, "size": made.size, "media_type": made.media_type}

    def _offer(self, wanted: Mapping[str, Any], media_type: str) -> Offer:
        body = {**wanted, "media_type": media_type, "workspace": self.workspace}
        found = read(_Address, self._post("approval", "/v1/evidence/uploads", body))
        return Offer(digest=wanted["digest"], size=wanted["size"], **found.model_dump())


def _of(evidence_id: str) -> str:
    return f"/v1/evidence/{quote(evidence_id, safe='')}"
