"""The client: typed answers, retries that never do a thing twice."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from contracts.envelope import explain
from contracts.model import Artifact, Column, Environment, Pointer, Signature, VersionContent
from contracts.payload import ModelName
from hallmark import artifacts, capture
from hallmark.approvals import Approvals
from hallmark.catalogue import Catalogue, given
from hallmark.catalogue import of as _model
from hallmark.connection import read
from hallmark.download import export, obtain
from hallmark.errors import HallmarkError
from hallmark.follow import Follower
from hallmark.identities import Identities
from hallmark.notifications import Notifications
from hallmark.oversight import Oversight
from hallmark.progress import bars
from hallmark.results import Pin, Transition, Version
from hallmark.searches import Searches
from hallmark.serving import Serving
from hallmark.upload import Offer, Offers, Uploader

LONG_POLL_SECONDS = 20.0
VERIFICATION_SECONDS = 60.0
MODEL_NAME: TypeAdapter[str] = TypeAdapter(ModelName)


class Client(Catalogue, Serving, Approvals, Oversight, Notifications, Searches, Identities):
    """Talks to Hallmark. Thread-safe; close it or use it in a `with`.

    `url` is the registry's address (HALLMARK_URL, else http://127.0.0.1:8801); the other services are found through
    it. `token` is a bearer token (HALLMARK_TOKEN). `retry_for`: how many seconds outages are waited out.
    Every method raises `HallmarkError`.
    """

    # -- models and versions -------------------------------------------------------------------------------------

    def upload(
        self, path: str | Path, *, media_type: str | None = None, progress: Any = None, hashing: Any = None
    ) -> Artifact:
        """Hashes the file, or every file of the directory, and sends what the object store lacks.

        After a failure, call it again: what arrived is not sent a second time. `progress` is called with the number
        of bytes sent since the last call, `hashing` with that of bytes hashed; without either, a bar is shown where
        the errors go to a terminal.

        Raises:
            HallmarkError: code `no-such-file`, `empty-directory`, `too-many-files`, `symlink-escapes`, `symlink-loop`,
                `special-file`, `invalid-file-name`, `unreadable-file`, `file-changed`, `upload-failed`, `connection`.
        """
        if progress is None and hashing is None and sys.stderr.isatty():
            with bars(Path(path).name) as (hashed, sent):
                return self.upload(path, media_type=media_type, progress=sent, hashing=hashed)
        artifact, files = artifacts.survey(Path(path), media_type, hashing)

        def ask(wanted: Sequence[Mapping[str, Any]]) -> Sequence[Offer]:
            return read(Offers, self._post("registry", "/v1/artifacts", {"files": list(wanted)})).files

        def complete(sent: Mapping[str, Any]) -> None:
            self._post("registry", "/v1/artifacts/complete", dict(sent))

        Uploader(self.http, ask, complete, progress).send(files)
        return artifact

    def content(
        self,
        artifact: str | Path | Artifact,
        *,
        metrics: Mapping[str, float] | None = None,
        better: Mapping[str, Literal["higher", "lower"]] | None = None,
        parameters: Mapping[str, Any] | None = None,
        datasets: Sequence[capture.DatasetLike] = (),
        signature: Signature | Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        environment: Environment | None = None,
        run: Pointer | Mapping[str, str] | None = None,
        parents: Sequence[int] = (),
        trained_at: datetime | None = None,
        training_seconds: float | None = None,
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str = "",
        progress: Any = None,
    ) -> VersionContent:
        """Everything that is fixed at registration: uploads the artifact and captures git, environment, data, and the
        run of MLflow or Weights & Biases that it is called in.

        `datasets`: paths whose content is hashed, pointers of DVC (`data.csv.dvc`, `dvc.lock`), or what else names
        them. `environment` is that of this process, unless training ran in another one and captured its own.

        Raises:
            HallmarkError: code `invalid-content` (the text names the fields), `invalid-artifact` (an .onnx file that
                cannot be loaded, which is then not uploaded), `invalid-dataset`, or one of `upload`.
        """
        if signature is None and not isinstance(artifact, Artifact) and Path(artifact).suffix == ".onnx":
            artifacts.exists(Path(artifact))
            signature = capture.onnx_signature(Path(artifact))
        try:
            lineage = capture.lineage(capture.datasets(datasets))  # before the upload: a wrong name costs nothing then
            stored = artifact if isinstance(artifact, Artifact) else self.upload(artifact, progress=progress)
            return VersionContent(
                artifact=stored,
                metrics=dict(metrics or {}),
                better=dict(better or {}),
                parameters=dict(parameters or {}),
                signature=_signature(signature),
                environment=environment or capture.environment(),
                lineage=lineage.model_copy(
                    update={"run": Pointer.model_validate(run) if run else capture.run(), "parents": tuple(parents)}
                ),
                trained_at=trained_at,
                training_seconds=training_seconds,
                owner=owner,
                tags=dict(tags or {}),
                notes=notes,
            )
        except ValidationError as error:
            raise HallmarkError("invalid-content", explain(error)) from error

    def register(
        self, model: str, artifact: str | Path | Artifact, *, wait: float = VERIFICATION_SECONDS, **details: Any
    ) -> Version:
        """Registers the next version of a model (made when absent) and returns it when it is verified.

        `details` are those of `content`: metrics, better, parameters, datasets, signature, environment, run, parents,
        trained_at, training_seconds, owner, tags, notes. Safe to repeat on a network error: one call makes one version.

        Raises:
            HallmarkError: also `version-rejected`, when the registry found other bytes than were declared. After `wait`
                seconds a version that is still `pending` is returned as it is.
        """
        check_name(model)
        return self.register_content(model, self.content(artifact, **details), wait=wait)

    def register_content(
        self,
        model: str,
        content: VersionContent,
        *,
        idempotency_key: str | None = None,
        wait: float = VERIFICATION_SECONDS,
    ) -> Version:
        """Registers content made before. The same key with the same content gives the same version."""
        body = content.model_dump(mode="json")
        made = read(Version, self._post("registry", f"{_model(model)}/versions", body, key=idempotency_key))
        deadline = time.monotonic() + wait
        while made.status == "pending" and (left := deadline - time.monotonic()) > 0:
            made = self.version(model, made.version, wait=min(left, LONG_POLL_SECONDS))
        if made.status == "rejected":
            raise HallmarkError("version-rejected", f"version {made.version} was rejected: {made.status_detail}")
        return made

    def versions(self, model: str) -> Iterator[Version]:
        return self._pages("registry", f"{_model(model)}/versions", Version)

    def version(self, model: str, version: int, *, wait: float = 0.0) -> Version:
        """One version; `wait` up to that many seconds while it is pending."""
        path = f"{_model(model)}/versions/{version}"
        return read(Version, self._get("registry", path, patience=wait, wait=round(wait, 3) or None))

    def compare(self, model: str, *versions: int) -> dict[str, Any]:
        """What differs between versions, as the registry tells it."""
        chosen = ",".join(str(version) for version in versions)
        found: dict[str, Any] = self._get("registry", f"{_model(model)}/compare", versions=chosen).json()
        return found

    def resolve(
        self, model: str, *, stage: str = "Production", alias: str | None = None, version: int | None = None
    ) -> Pin:
        """What to serve: the newest version in a stage, the one an alias points at, or one by its number.

        Raises:
            VersionRevoked: it leads to a version that nobody may use any more: stop using it.
        """
        return read(Pin, self._get("registry", f"{_model(model)}/resolve", **_which(stage, alias, version)))

    def resolve_if_changed(
        self, model: str, *, stage: str = "Production", alias: str | None = None, etag: str | None = None
    ) -> tuple[Pin | None, str | None]:
        """(pin, ETag), or (None, the ETag given) when nothing changed since."""
        headers = {"if-none-match": etag} if etag else {}
        response = self._get("registry", f"{_model(model)}/resolve", headers=headers, **_which(stage, alias))
        if response.status_code == 304:
            return None, etag
        return read(Pin, response), response.headers.get("etag")

    def follow(self, model: str, *, stage: str = "Production", alias: str | None = None) -> Follower:
        """The changes of a stage or an alias as the registry tells them (server-sent events)."""
        url = self._base("registry") + f"{_model(model)}/watch"
        return Follower(self.http, url, {"workspace": self.workspace} | _which(stage, alias), self._authorization())

    def download(self, pin: Pin, directory: str | Path | None = None, *, progress: Any = None) -> Path:
        """The verified file, or directory, of a pin: from the cache where it is, else from the object store.

        Without `directory` the answer is the path in the cache, named by digest; else it is the artifact's name below
        `directory`, which is never mixed with other files.

        Raises:
            HallmarkError: code `no-download`, `download-failed`, `digest-mismatch`, `unexpected-files`, `connection`.
        """
        where = Path(directory) if directory else None
        try:
            return obtain(self.http, pin, artifacts.cache_dir(), where, progress)
        except HallmarkError as error:
            if error.code != "download-failed" or error.status != 403:
                raise
        fresh = self.resolve(pin.model, version=pin.version)  # the addresses have expired
        if fresh.artifact != pin.artifact:
            raise HallmarkError("digest-mismatch", f"{pin.model} version {pin.version} is not what was pinned")
        return obtain(self.http, fresh, artifacts.cache_dir(), where, progress)

    def export_pin(self, pin: Pin, directory: str | Path, *, progress: Any = None) -> Path:
        """Writes the pin and its files for servers that start without the registry (`watch(..., bootstrap=...)`).

        Gives the pin's file. Raises as `download`.
        """
        return export(self.http, pin, Path(directory), progress)

    # -- stages --------------------------------------------------------------------------------------------------

    def request_stage(
        self,
        model: str,
        version: int,
        to: str,
        reason: str,
        *,
        expected_from: str | None = None,
        fields: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> Transition:
        """Asks for a stage. `wait` seconds for the decision; an answer still `open` awaits people.

        `fields`: what the policies ask for beside the reason, such as a change ticket.
        """
        body = {"to_stage": to, "reason": reason, "expected_from": expected_from, **given(fields)}
        response = self._post("registry", f"{_model(model)}/versions/{version}/transitions", body)
        return self.wait_for(read(Transition, response), wait)

    def rollback(
        self,
        model: str,
        reason: str,
        *,
        stage: str = "Production",
        to_version: int | None = None,
        fields: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> Transition:
        """Puts the stage's last good occupant (or `to_version`) back. `fields` as in `request_stage`."""
        body = {"stage": stage, "reason": reason, "to_version": to_version, **given(fields)}
        response = self._post("registry", f"{_model(model)}/rollback", body)
        return self.wait_for(read(Transition, response), wait)

    def transition(self, transition_id: str, *, wait: float = 0.0) -> Transition:
        """One transition; `wait` up to that many seconds for it to close."""
        first = read(Transition, self._get("registry", f"/v1/transitions/{quote(transition_id, safe='')}"))
        return self.wait_for(first, wait)

    def wait_for(self, transition: Transition, seconds: float) -> Transition:
        """Long-polls until the transition closes or the time is over; returns its last known state."""
        path = f"/v1/transitions/{quote(transition.transition_id, safe='')}"
        deadline = time.monotonic() + seconds
        while transition.open and (left := deadline - time.monotonic()) > 0:
            span = min(left, LONG_POLL_SECONDS)
            transition = read(Transition, self._get("registry", path, patience=span, wait=round(span, 3)))
        return transition


def check_name(model: str) -> None:
    """Before anything is uploaded under it.

    Raises:
        HallmarkError: code `invalid-name`.
    """
    try:
        MODEL_NAME.validate_python(model)
    except ValidationError as error:
        raise HallmarkError(
            "invalid-name",
            f"{model!r} cannot name a model: 1 to 200 characters, no slash, colon or control character, "
            "no space at either end, no dot in front",
        ) from error


def _which(stage: str, alias: str | None, version: int | None = None) -> dict[str, Any]:
    if version is not None:
        return {"version": version}
    return {"alias": alias} if alias is not None else {"stage": stage}


def _signature(given: Signature | Mapping[str, Sequence[Mapping[str, Any]]] | None) -> Signature:
    if given is None or isinstance(given, Signature):
        return given or Signature()
    return Signature(**{side: tuple(Column.model_validate(c) for c in columns) for side, columns in given.items()})
