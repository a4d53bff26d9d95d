"""The keys that decisions are signed with: taken up from their file as it changes, and `python -m approval keys`."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from joserfc.jwk import OKPKey

from approval.decision import TYPES, sign
from approval.settings import ApprovalSettings
from contracts.approval import Decision, Revocation
from contracts.keys import not_counting
from kit import signed
from kit.main import Command, duration
from kit.ring import REASONS, Ring, RingKey, held, read_ring, write_ring

log = structlog.get_logger()
Stamp = tuple[int, int, int] | None
AGAIN_SECONDS = 5.0  # after a read that failed


class Keyring:
    """The keys of a file, read again as soon as it changes. A file that cannot be read changes nothing, and is logged.

    Raises (from the start only): ValueError, when the file is missing or holds no keys.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._seen = _stamp(path)
        self._failed_at = -math.inf
        self._ring = read_ring(path, clock())

    def sign(self, document: Decision | Revocation) -> str:
        """The compact JWS over `document`, with the key of this moment. Raises TooLong."""
        return sign(document, self.key())

    def counts(self, token: str, kind: type[Decision | Revocation], at: datetime) -> bool:
        """Whether the key counts that signed this document, dated `at`. Raises Refused when it is no document."""
        kid = signed.kid_of(token, TYPES[kind])
        key = next((key for key in self.ring().keys if key.kid == kid), None)
        return key is not None and not_counting(key.published(), at) is None

    def key(self) -> OKPKey:
        """The private key that signs now."""
        return self.ring().signing(self._clock())

    def ring(self) -> Ring:
        stamp = _stamp(self._path)
        if stamp != self._seen and time.monotonic() >= self._failed_at + AGAIN_SECONDS:
            now = self._clock()
            try:
                self._ring, self._seen = read_ring(self._path, now), stamp
                log.info("keys of decisions read again", keys={key.kid: key.state(now) for key in self._ring.keys})
            except ValueError as error:
                self._failed_at = time.monotonic()
                log.error("keys of decisions not read again", error=str(error))
        return self._ring


def published(keyring: Keyring) -> dict[str, Any]:
    """The public JWK Set: who signs, who signed before (`exp`), and whom nobody may trust (`revoked`)."""
    return keyring.ring().published()


def _stamp(path: Path) -> Stamp:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


# -- the command -------------------------------------------------------------------------------------------------

EXAMPLES = """
examples:
  python -m approval keys list
  python -m approval keys rotate              a new key signs from now on; what the former signed stays good
  python -m approval keys rotate --in 10m     publish it now, sign with it in 10 minutes: for several hosts
  python -m approval keys revoke KID --reason compromised
  python -m approval keys revoke --all        the file was stolen

Running services take the change up at once; whoever verifies decisions, within a minute. A decision that was signed
with a revoked key and not carried out yet is refused: ask for that transition again.
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    _explain(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|rotate|revoke")
    every = {
        "list": verbs.add_parser("list", help="the keys and what they are good for"),
        "rotate": verbs.add_parser("rotate", help="a new key signs; the former stays published"),
        "revoke": verbs.add_parser("revoke", help="nothing counts any more that a key signed, whatever its date"),
    }
    for verb in every.values():
        _explain(verb)
        verb.add_argument("--json", action="store_true", help="the keys as JSON on standard output")
    every["rotate"].add_argument(
        "--in",
        dest="after",
        type=duration,
        default=timedelta(),
        metavar="TIME",
        help="when the new key begins to sign, such as 10m (default: at once)",
    )
    every["revoke"].add_argument("kid", nargs="*", help="as `list` shows them; write -- before one that begins with -")
    every["revoke"].add_argument("--all", action="store_true", help="every key that is not revoked yet")
    every["revoke"].add_argument("--reason", choices=REASONS, default=REASONS[0])


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter


async def _command(settings: ApprovalSettings, given: argparse.Namespace) -> int:
    path, now = settings.decision_key, time.time()
    try:
        if given.verb == "list":
            ring = read_ring(path, now)
        else:
            with held(path):
                ring = _changed(read_ring(path, now), given, now)
                write_ring(path, ring, now)
    except (ValueError, OSError) as error:
        print(f"error: {_reason(error)}", file=sys.stderr)
        return 1
    documents = [_document(key, now) for key in ring.keys]
    if given.json:
        print(json.dumps({"keys": documents}))
    else:
        for document in documents:
            print(_line(document))
    return 0


def _changed(ring: Ring, given: argparse.Namespace, now: float) -> Ring:
    if given.verb == "rotate":
        return ring.rotated(now, now + given.after.total_seconds())
    if given.all == bool(given.kid):
        raise ValueError("name the keys to revoke, or say --all")
    kids = given.kid or [key.kid for key in ring.keys if key.revoked_at is None]
    return ring.revoked(kids, now, given.reason)


def _reason(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot write {error.filename}: {error.strerror}. Run it where the file of keys may be written."
    return str(error)


def _document(key: RingKey, now: float) -> dict[str, Any]:
    times = {"from": key.not_before, "until": key.not_after, "revoked_at": key.revoked_at}
    return {
        "kid": key.kid,
        "state": key.state(now),
        **{name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()},
        "reason": key.reason,
    }


def _line(document: dict[str, Any]) -> str:
    times = [f"{name.replace('_', ' ')} {document[name]}" for name in ("from", "until", "revoked_at") if document[name]]
    reason = [document["reason"]] if document["reason"] else []
    return f"{document['kid']}  {document['state']:8}  {', '.join(times + reason)}".rstrip()


COMMAND = Command("keys", "list, rotate and revoke the keys that sign decisions", _arguments, _command)
