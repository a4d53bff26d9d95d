"""The parts of serving that live as long as the process."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from joserfc.jwk import OKPKey

from contracts.model import Artifact
from kit.db import Database
from registry.serving.hub import Hub
from registry.serving.pins import REVOCATION_TYPE, PinSigner
from registry.serving.resolve import Resolved
from registry.serving.usage import Usage

FEW_FILES = 20  # more addresses than these are signed in a thread


class Serving:
    """`background` runs from start to stop; `close` ends the open streams when the server begins to stop.

    `download_url` gives a presigned address for a digest. `epoch` grows when sequences begin anew, after a restore.
    """

    def __init__(self, db: Database, key: OKPKey, download_url: Callable[[str], str], epoch: int = 0) -> None:
        self.db = db
        self.hub = Hub(db)
        self.usage = Usage(db, self.hub.present)
        self.signer = PinSigner(key)
        self._download_url = download_url
        self._epoch = epoch

    @property
    def background(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        return (self.hub.run, self.usage.run)

    def close(self) -> None:
        self.hub.close()

    async def document(self, found: Resolved) -> dict[str, Any]:
        """What `resolve` answers: the version, its pin, and an address for each file."""
        artifact = Artifact.model_validate(found.artifact, strict=False)
        parts = artifact.parts()

        def urls() -> list[str]:
            return [self._download_url(part.digest) for part in parts]

        signed = urls() if len(parts) <= FEW_FILES else await asyncio.to_thread(urls)
        files = [
            {"path": part.path, "digest": part.digest, "size": part.size, "url": url}
            for part, url in zip(parts, signed, strict=True)
        ]
        return {
            "workspace": found.workspace,
            "model": found.model,
            "name": found.name,
            "target": found.target,
            "version": found.version,
            "stage": found.stage,
            "status": found.status,
            "digest": found.digest,
            "artifact": found.artifact,
            "metrics": found.metrics,
            "sequence": found.sequence,
            "epoch": self._epoch,
            "at": found.at,
            "also": found.also,
            "files": files,
            "download_url": files[0]["url"] if files else None,  # none of an external artifact
            "pin": self.signer.sign(
                {
                    "workspace": found.workspace,
                    "model": found.model,
                    "target": found.target,
                    "version": found.version,
                    "digest": found.digest,
                    "artifact_digest": found.artifact_digest,
                    "status": found.status,
                    "sequence": found.sequence,
                    "epoch": self._epoch,
                    "iat": int(time.time()),
                }
            ),
            **({"warning": found.warning} if found.warning else {}),
        }

    def sign_revocation(self, workspace: str, told: dict[str, Any]) -> str:
        """`told` (model, version, reason, at, by) as a JWS: nobody on the way can make a server stop."""
        return self.signer.sign({"workspace": workspace, **told, "iat": int(time.time())}, REVOCATION_TYPE)
