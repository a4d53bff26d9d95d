"""What goes to the inspecting process and what comes back, as JSON."""

import json
import socket
from dataclasses import asdict
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from contracts.model import MAX_FILES, FilePath, Inspection, Size
from contracts.payload import Digest, Payload, Text
from registry.inspection.report import Limits

MOST_REPLY = 8 << 20
MOST_JOB = 32 << 20


class Part(Payload):
    """One file: where it can be fetched (a presigned GET), and what it must be."""

    path: FilePath
    url: Annotated[str, Field(max_length=8_000, pattern=r"^https?://")]
    digest: Digest
    size: Size


class Job(Payload):
    """Paths that step out of the directory, and one path twice, are refused with a ValueError."""

    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        paths = [part.path for part in self.parts]
        if len(set(paths)) < len(paths) or any(step in (".", "..") for path in paths for step in path.split("/")):
            raise ValueError("a path is given twice or steps out of the directory")
        return self


class ExaminedPart(Payload):
    """What the store really holds. Missing: neither digest nor size. More bytes than declared: reading stopped, so
    there is no digest, and `size` is what had come by then."""

    path: FilePath
    digest: Digest | None
    size: Size | None


class Examined(Payload):
    """All parts in the job's order. Contents are inspected only when every part is what it must be."""

    parts: tuple[ExaminedPart, ...]
    inspection: Inspection


class Fetched(Payload):
    """First message of the child."""

    parts: tuple[ExaminedPart, ...]


class Done(Payload):
    """Second message of the child."""

    inspection: Inspection


class Away(Payload):
    """Instead of either: not now, perhaps later."""

    transient: Text


def encode_job(job: Job, scratch: str, limits: Limits, seconds: float) -> bytes:
    given = {"job": job.model_dump(mode="json"), "scratch": scratch, "limits": asdict(limits), "seconds": seconds}
    return frame(json.dumps(given).encode())


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def receive(link: socket.socket, most: int) -> bytes:
    """One frame. Raises EOFError or ValueError."""
    return _exactly(link, _length(_exactly(link, 4), most))


def _length(head: bytes, most: int) -> int:
    size = int.from_bytes(head, "big")
    if size > most:
        raise ValueError(f"a message of {size} bytes")
    return size


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = link.recv(min(1 << 20, size - len(data)))
        if not chunk:
            raise EOFError("the other side has gone")
        data += chunk
    return bytes(data)


def decode(data: bytes) -> Any:
    return json.loads(data)
