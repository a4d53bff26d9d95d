"""`python -m audit sign`: the process that holds the log's keys, and signs only what extends what it signed before.

Whoever owns the ingester and its database can then add to the log, but not rewrite it. The state is one small file,
replaced before a signature leaves: a crash between the two costs nothing, since one tree may be signed twice.
"""

import argparse
import asyncio
import hmac
import json
import os
import socket
import stat
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response

from audit.note import Checkpoint, NoteError, NoteSigner, read_checkpoint
from audit.settings import SignerSettings, read_token
from audit.tlog import addition
from audit.tlog.archive import Contradiction
from audit.tlog.signing import UNIX, Behind, Head, Overtaken, check_extension, envelope_key, keys_of
from kit import problems
from kit.main import Command
from kit.problems import Problem
from kit.ring import held, replace_file

log = structlog.get_logger()
MAX_ENVELOPE = 64 << 20


class State:
    """What was signed last for one origin, in a file. Processes take turns with it."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path, self._origin = path, origin

    def create(self) -> bool:
        """The state of a log that signed nothing yet. False where there is one already."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with held(self._path):
            if self._path.exists():
                return False
            self._write(Head())
            return True

    def read(self) -> Head:
        """Raises ValueError when the file is missing, damaged, or of another log."""
        try:
            document = json.loads(self._path.read_bytes())
            head = Head(document["size"], b64decode(document["root"], validate=True))
            if document["origin"] != self._origin:
                raise ValueError(f"it is of the log {document['origin']!r}")
            if type(head.size) is not int or head.size < 0 or len(head.root) != 32:
                raise ValueError("it holds no size and root")
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"cannot read the signer's state {self._path}: {error}") from error
        return head

    def extend(self, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> None:
        """Remembers the checkpoint as the last one.

        Raises:
            Contradiction, Behind: as `check_extension`. Nothing has changed then.
            ValueError, OSError: the state cannot be read or written.
        """
        with held(self._path):
            last = self.read()
            check_extension(last, checkpoint, old, proof)
            if checkpoint.size != last.size:
                self._write(Head(checkpoint.size, checkpoint.root))

    def _write(self, head: Head) -> None:
        document = {"origin": self._origin, "size": head.size, "root": b64encode(head.root).decode()}
        replace_file(self._path, json.dumps(document) + "\n", 0o600)


def build(keys: Sequence[NoteSigner], origin: str, state: State, token: str | None) -> FastAPI:
    app = FastAPI(title="Hallmark checkpoint signer", openapi_url=None)
    problems.install(app)

    def admit(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Problem(401, "unauthenticated", "a valid bearer token is needed")

    @app.get("/healthz")
    async def health() -> Response:
        return Response("ok\n")

    @app.get("/vkeys")
    async def vkeys(request: Request) -> Response:
        admit(request)
        return _lines("".join(f"{key.vkey}\n" for key in keys))

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        admit(request)
        try:
            wanted = addition.read(await _body(request))
            checkpoint = read_checkpoint(wanted.checkpoint)
        except NoteError as error:
            raise Problem(400, "invalid-request", str(error)) from error
        if checkpoint.origin != origin or checkpoint.text() != wanted.checkpoint:
            raise Problem(404, "unknown-log", f"only checkpoints of {origin}, without extension lines, are signed")
        try:
            await asyncio.to_thread(state.extend, checkpoint, wanted.old, wanted.proof)
        except (Behind, Overtaken) as conflict:
            return Response(f"{conflict.size}\n", 409, media_type=addition.SIZE_TYPE)
        except Contradiction as error:
            log.critical("refused to sign another history", size=checkpoint.size, error=error.detail)
            raise Problem(422, "split-log", error.detail) from error
        return _lines("".join(key.line(wanted.checkpoint) for key in keys))

    @app.post("/sign-envelope")
    async def sign_envelope(request: Request) -> Response:
        """Manifests of exports and the like. An envelope says nothing of the tree, so no state is asked."""
        admit(request)
        try:
            signature = envelope_key(keys).envelope(await _body(request, MAX_ENVELOPE))
        except NoteError as error:
            raise Problem(400, "invalid-request", str(error)) from error
        return Response(signature, media_type="application/octet-stream")

    return app


def listen(address: str) -> socket.socket:
    """The socket of `unix:/path` (for the owner and the group) or `http://host:port`.

    Raises:
        OSError: it is taken, or cannot be opened.
    """
    if not address.startswith(UNIX):
        parts = urlsplit(address)
        return socket.create_server((parts.hostname or "", parts.port or 80))
    path = Path(address.removeprefix(UNIX))
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
            path.unlink()  # its process was killed
    listening = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o117)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    listening.listen(128)
    return listening


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _lines(text: str) -> Response:
    return Response(text, media_type="text/plain; charset=utf-8")


async def _body(request: Request, limit: int = addition.MAX_BYTES) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "too-large", f"a request has at most {limit} bytes")
    return bytes(body)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--init", action="store_true", help="only make the state of a new log, where there is none")


async def _work(settings: SignerSettings, given: argparse.Namespace) -> int:
    state = State(settings.checkpoint_signer_state, settings.checkpoint_origin)
    try:
        if given.init:
            sys.stdout.write("a new state\n" if state.create() else "the state is there already\n")
            return 0
        last = state.read()
        keys = keys_of(settings.checkpoint_origin, settings.checkpoint_key, settings.checkpoint_mldsa_key)
        app = build(keys, settings.checkpoint_origin, state, read_token(settings.checkpoint_signer_token))
        listening = listen(settings.checkpoint_signer)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"cannot sign: {error}\n")
        return 2
    log.info("signing", origin=settings.checkpoint_origin, size=last.size, address=settings.checkpoint_signer)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False))
    with listening:
        await server.serve([listening])
    return 0


COMMAND = Command("sign", "the process that holds the keys of checkpoints", _arguments, _work, settings=SignerSettings)
