"""One job in a process of its own: takes away what it does not need, works, answers, ends."""

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from contracts.model import Signature
from registry.inspection.fetch import Fetcher, StoreAway
from registry.inspection.jobs import MOST_JOB, Away, Done, Fetched, Job, decode, frame, receive
from registry.inspection.look import inspect
from registry.inspection.report import MIB, DiskFull, Limits, Report

OUT_OF_MEMORY = 70  # exit codes
TOO_DEEP = 71
_PAGE = os.sysconf("SC_PAGE_SIZE")


def work(link: socket.socket) -> None:
    """Reads the job from `link` and writes the answers: Fetched then Done, or Away."""
    given = decode(receive(link, MOST_JOB))
    limits, scratch = Limits(**given["limits"]), Path(given["scratch"])
    confine(limits, given["seconds"])
    job = Job.model_validate(given["job"])
    os.chdir(scratch)
    fetcher = Fetcher(scratch, limits.scratch)
    try:
        found = tuple(fetcher.fetch(part) for part in job.parts)
    except (StoreAway, DiskFull) as error:
        _send(link, Away(transient=str(error)[:2_000]))
        return
    _send(link, Fetched(parts=found))
    wanted = [(part.digest, part.size) for part in job.parts]
    if [(part.digest, part.size) for part in found] != wanted:
        report = Report()
        report.info("not-inspected", "the bytes are not the declared ones")
        _send(link, Done(inspection=report.result(None, Signature())))
        return
    try:
        found_in_it = inspect(scratch, [part.path for part in job.parts], limits=limits, sizes=fetcher.sizes)
    except (MemoryError, RecursionError) as error:
        os._exit(OUT_OF_MEMORY if isinstance(error, MemoryError) else TOO_DEEP)
    except DiskFull as error:
        _send(link, Away(transient=str(error)[:2_000]))
        return
    _send(link, Done(inspection=found_in_it))


def confine(limits: Limits, seconds: float) -> None:
    """The kernel ends what goes beyond. Linux counts address space, other systems data."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        _limit(resource.RLIMIT_AS, used + limits.memory)
    except OSError:
        _limit(resource.RLIMIT_DATA, limits.memory)
    # Ours are the limits on all files together; this one is the last resort for any single one.
    _limit(resource.RLIMIT_FSIZE, max(limits.scratch, limits.unpacked) + MIB)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 128)
    _limit(resource.RLIMIT_CPU, int(seconds) + 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + 2)  # should the parent be gone


def follow_parent() -> None:
    """On Linux: the warm process's end is ours."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _send(link: socket.socket, message: Fetched | Done | Away) -> None:
    link.sendall(frame(json.dumps(message.model_dump(mode="json")).encode()))
