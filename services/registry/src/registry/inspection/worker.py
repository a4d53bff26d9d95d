"""Runs inspections away from the service: a fresh process for each job, forked from a warm and clean one."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import structlog
from pydantic import ValidationError

from contracts.model import Signature
from kit.errors import Transient
from registry.inspection.child import OUT_OF_MEMORY, TOO_DEEP
from registry.inspection.jobs import (
    MOST_REPLY,
    Away,
    Done,
    Examined,
    ExaminedPart,
    Fetched,
    Job,
    decode,
    encode_job,
)
from registry.inspection.report import Limits, Report

log = structlog.get_logger()
_PREFIX = "hallmark-inspect-"
# Beside these the child's environment is empty: no secret of the service reaches it. One thread: it forks.
_KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LANG", "TZ", "LD_LIBRARY_PATH")
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class InspectionFailed(Exception):
    """The child ended before it knew the files' digests, and a retry will hardly do better."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass
class _Server:
    process: asyncio.subprocess.Process
    control: socket.socket


class Inspector:
    """`async with Inspector() as inspector: await inspector.run(job)`. `at_once`: how many children there may be.

    `root`: where scratch directories are made; what a killed service left there is removed at the start.
    """

    def __init__(self, *, limits: Limits | None = None, root: Path | None = None, at_once: int = 2) -> None:
        self.limits = limits or Limits()
        self._root = root or Path(tempfile.gettempdir())
        self._slots = asyncio.Semaphore(at_once)
        self._starting = asyncio.Lock()
        self._server: _Server | None = None
        self._home: Path | None = None
        self._lock: IO[str] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._home, self._lock = await asyncio.to_thread(_settle, self._root)
        await self._ready()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await _end(server)
        if self._home is not None:
            await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    async def run(self, job: Job) -> Examined:
        """Downloads, verifies and inspects. Cancelling it kills the child.

        A child that dies while it inspects gives an inspection with the unsafe finding `inspection-failed`.

        Raises:
            Transient: the store cannot be read now, or the download took too long.
            InspectionFailed: the child died earlier than that.
        """
        async with self._slots:
            scratch = await asyncio.to_thread(tempfile.mkdtemp, dir=self._home)
            try:
                return await self._run(job, scratch)
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))

    async def _run(self, job: Job, scratch: str) -> Examined:
        size = sum(part.size for part in job.parts)
        download = self.limits.seconds + size / self.limits.slowest_download
        server = await self._ready()
        link, theirs = socket.socketpair()
        life, their_life = socket.socketpair()
        try:
            with theirs, their_life:
                socket.send_fds(server.control, [b"j"], [theirs.fileno(), their_life.fileno()])
        except OSError as error:
            link.close()
            life.close()
            raise Transient("the inspecting process has gone") from error
        child = _Child(link, life)
        try:
            await child.open()
            child.writer.write(encode_job(job, scratch, self.limits, download + self.limits.seconds))
            return await self._talk(child, job, download)
        finally:
            await asyncio.shield(child.kill())

    async def _talk(self, child: "_Child", job: Job, download: float) -> Examined:
        try:
            async with asyncio.timeout(download):
                await child.writer.drain()
                first = await child.message()
        except TimeoutError as error:
            raise Transient(f"the download took more than {download:.0f} seconds") from error
        except (OSError, EOFError, ValueError) as error:
            why = await child.why(error)
            raise InspectionFailed("inspection-failed", f"the inspection ended early: {why}") from error
        try:
            if "transient" in first:
                raise Transient(Away.model_validate(first).transient)
            parts = Fetched.model_validate(first).parts
        except (ValidationError, TypeError) as error:
            raise InspectionFailed("inspection-failed", "the inspection's answer is malformed") from error
        if [part.path for part in parts] != [part.path for part in job.parts]:
            raise InspectionFailed("inspection-failed", "the inspection's answer is of other files")
        try:
            async with asyncio.timeout(self.limits.seconds):
                last = await child.message()
            if "transient" in last:
                raise Transient(Away.model_validate(last).transient)
            return Examined(parts=parts, inspection=Done.model_validate(last).inspection)
        except TimeoutError:
            return _failed(parts, f"it took more than {self.limits.seconds:.0f} seconds")
        except (OSError, EOFError, ValueError, TypeError) as error:
            return _failed(parts, await child.why(error))

    async def _ready(self) -> _Server:
        """The warm process, started anew when it has gone."""
        async with self._starting:
            if self._server is not None and self._server.process.returncode is None:
                return self._server
            if self._server is not None:
                log.warning("inspection_server_gone", status=self._server.process.returncode)
                await _end(self._server)
            ours, theirs = socket.socketpair()
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-m", "registry.inspection.server", str(theirs.fileno())),
                    env={name: os.environ[name] for name in _KEPT if name in os.environ} | _SINGLE,
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    cwd=self._home,
                    start_new_session=True,  # Ctrl-C is for the service
                )
            server = _Server(process, ours)
            ours.setblocking(False)
            try:
                async with asyncio.timeout(60):  # its imports; a job's time does not run yet
                    if not await asyncio.get_running_loop().sock_recv(ours, 1):
                        raise Transient("the inspecting process does not start")
            except BaseException:
                await asyncio.shield(_end(server))
                raise
            self._server = server
            return server


class _Child:
    """Our ends of the two sockets of one job."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, link: socket.socket, life: socket.socket) -> None:
        self._link = link
        self._life = life
        self._status: int | None = None
        self._over = False

    async def open(self) -> None:
        self._life.setblocking(False)
        self.reader, self.writer = await asyncio.open_connection(sock=self._link)

    async def message(self) -> Any:
        """Raises EOFError, ValueError or OSError."""
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        if size > MOST_REPLY:
            raise ValueError(f"an answer of {size} bytes")
        return decode(await self.reader.readexactly(size))

    async def why(self, error: Exception) -> str:
        """Why it gave no answer."""
        await self.kill()
        match self._status:
            case None:
                return "its process has gone"
            case status if status == OUT_OF_MEMORY:
                return "it took more memory than it may"
            case status if status == TOO_DEEP:
                return "its parts are nested too deeply"
            case 0:
                return f"its answer is malformed ({type(error).__name__})"
            case status if status < 0:
                return f"its process was ended by {signal.Signals(-status).name}"
            case status:
                return f"its process ended with {status}"

    async def kill(self) -> None:
        """Ends the process if it still runs, and waits until it has ended."""
        if self._over:
            return
        self._over = True
        try:
            if hasattr(self, "writer"):
                self.writer.close()
            with contextlib.suppress(OSError):
                self._life.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                async with asyncio.timeout(10):
                    said = await asyncio.get_running_loop().sock_recv(self._life, 100)
                self._status = int(said)
        finally:
            self._life.close()
            self._link.close()


def _failed(parts: tuple[ExaminedPart, ...], why: str) -> Examined:
    report = Report()
    report.unsafe("inspection-failed", f"the inspection did not end well: {why}")
    return Examined(parts=parts, inspection=report.result(None, Signature()))


async def _end(server: _Server) -> None:
    server.control.close()
    try:
        await asyncio.wait_for(server.process.wait(), 5)
    except TimeoutError:
        server.process.kill()
        await server.process.wait()


def _settle(root: Path) -> tuple[Path, IO[str]]:
    """A directory of our own, held by a lock, so that whoever comes later knows which ones nobody holds."""
    for old in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="hallmark-new-", dir=root))
    held = (made / "lock").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    home = made.rename(made.with_name(_PREFIX + made.name.rpartition("-")[2]))  # locked before anybody looks for it
    return home, held
