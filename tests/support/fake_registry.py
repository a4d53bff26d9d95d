"""A registry and its store in one handler, for watchers: it lies, fails and disappears when told to."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from registry.serving.pins import REVOCATION_TYPE, PinSigner

GONE: dict[str, Any] = {
    "type": "urn:hallmark:problem:version-revoked",
    "detail": "olga revoked version 1: it leaks. Stop using it",
    "model": "m",
    "reason": "it leaks",
    "by": "olga",
    "at": "2026-01-01T00:00:00+00:00",
}


class Registry:
    """`bytes` is the occupant of Production. With a `signer` its pins and revocations are signed."""

    def __init__(self) -> None:
        self.down = False
        self.downloads = 0
        self.answers = 0
        self.lie: bytes | None = None
        self.revoked: set[int] = set()
        self.empty = False
        self.reports: list[dict[str, Any]] = []
        self.report_status = 200
        self.signer: PinSigner | None = None
        self.epoch = 0
        self.stream: Callable[[], Iterator[bytes]] | None = None
        self.put(1, b"model one", 1)

    def put(self, version: int, model: bytes, sequence: int) -> None:
        self.version, self.bytes, self.sequence = version, model, sequence

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.down:
            raise httpx2.ConnectError("down")
        if request.url.path == "/blob":
            self.downloads += 1
            return httpx2.Response(200, content=self.bytes if self.lie is None else self.lie)
        if request.url.path.endswith("/serving"):
            self.reports.append(json.loads(request.content))
            return httpx2.Response(self.report_status, json={"recorded": True})
        if request.url.path.endswith("/watch"):
            if self.stream is None:
                return httpx2.Response(404, json={"type": "urn:hallmark:problem:not-found", "detail": "Not Found"})
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self.stream())
        self.answers += 1
        asked = int(request.url.params.get("version", self.version))
        if asked in self.revoked:
            gone = GONE | {"version": asked}
            if self.signer is not None:
                said = {"workspace": "default", **{name: gone[name] for name in ("model", "version", "reason")}}
                gone["signed"] = self.signer.sign(said, REVOCATION_TYPE)
            return httpx2.Response(410, json=gone)
        if self.empty:
            return httpx2.Response(404, json={"type": "urn:hallmark:problem:nothing-in-stage", "detail": "nobody"})
        etag = f'"{self.version}.{self.sequence}"'
        if request.headers.get("if-none-match") == etag:
            return httpx2.Response(304, headers={"etag": etag})
        digest = f"sha256:{hashlib.sha256(self.bytes).hexdigest()}"
        pin: dict[str, Any] = {
            "workspace": "default",
            "model": "m",
            "version": self.version,
            "stage": "Production",
            "digest": f"sha256:{self.version:064d}",
            "artifact": {"digest": digest, "size": len(self.bytes), "filename": "m.onnx"},
            "download_url": "http://s3/blob",
            "sequence": self.sequence,
            "epoch": self.epoch,
        }
        if self.signer is not None:
            claims = {name: pin[name] for name in ("workspace", "model", "version", "digest", "sequence", "epoch")}
            about = {"target": "Production", "artifact_digest": digest, "status": "ready", "iat": 1_800_000_000}
            pin["pin"] = self.signer.sign(claims | about)
        return httpx2.Response(200, json=pin, headers={"etag": etag})
