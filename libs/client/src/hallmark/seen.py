"""Which digest of a request was read on this machine, so that a vote later binds to what its voter has read."""

import contextlib
import os
import time
from pathlib import Path
from urllib.parse import quote

from hallmark.approval_results import Request
from hallmark.artifacts import cache_dir
from hallmark.errors import HallmarkError

KEEP_SECONDS = 60 * 86_400.0


def remember(request: Request) -> None:
    """Keeps the digest of a request that somebody is shown. A disk that takes nothing is no reason to show nothing."""
    if request.request_digest is None or not request.open:
        return
    file = _file(request.request_id)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f"{file.name}.{os.getpid()}.new")
        scratch.write_text(request.request_digest)
        scratch.replace(file)
        oldest = time.time() - KEEP_SECONDS
        for kept in file.parent.iterdir():
            if kept.stat().st_mtime < oldest:
                kept.unlink(missing_ok=True)


def digest_to_sign(request: Request) -> str | None:
    """What an act on this request binds to: the digest that was shown last, or, when none was, the one it has now.

    Raises:
        HallmarkError: code `request-changed`; it is not the request that was shown.
    """
    try:
        shown = _file(request.request_id).read_text().strip()
    except (OSError, UnicodeDecodeError):
        shown = ""
    if request.open and shown and shown != request.request_digest:
        raise HallmarkError(
            "request-changed",
            f"the request has changed since you read it; read it again: hallmark request show {request.request_id}",
            status=409,
        )
    return request.request_digest


def _file(request_id: str) -> Path:
    return cache_dir() / "seen" / f"{quote(request_id, safe='')}.digest"
