"""`python -m audit check-export`: the manifest of an export, and everything in it, offline. It needs no settings."""

import argparse
import asyncio
import sys
from pathlib import Path

from audit.out.dsse import ManifestError
from audit.out.manifest import verify_manifest
from kit.main import Command
from kit.settings import ProcessSettings


def check(export: Path, key: str, since: Path | None = None, *, proved: bool = False) -> tuple[bool, str]:
    """Whether the export is what its manifest, signed by the owner of the key line, says; and what was found."""
    try:
        old = since.read_text("utf-8") if since is not None else None
        manifest = verify_manifest(export, key, since=old, proved=proved)
    except (ManifestError, OSError, UnicodeDecodeError) as error:
        return False, f"REFUSED: {error}\n"
    told, head = manifest["indexes"], manifest["checkpoint"]
    span = f", {told['first']} to {told['last']}" if told["count"] else ""
    entries = f"{told['count']} entries{span}, of them {told['copies']} copies"
    return True, f"verified: {entries}; log {head['origin']} of {head['size']} entries\nnext: {manifest['next']}\n"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the zip of GET /v1/export")
    parser.add_argument("--key", required=True, metavar="LINE", help="the log's Ed25519 verifier key line")
    parser.add_argument(
        "--since",
        type=Path,
        metavar="FILE",
        help="the manifest.json of the export that this one follows, or its checkpoint",
    )
    parser.add_argument("--proved", action="store_true", help="every entry must be proved to be under the checkpoint")


async def _work(_: ProcessSettings, given: argparse.Namespace) -> int:
    good, told = await asyncio.to_thread(check, given.file, given.key, given.since, proved=given.proved)
    (sys.stdout if good else sys.stderr).write(told)
    return 0 if good else 1


COMMAND = Command("check-export", "check an export offline", _arguments, _work, settings=ProcessSettings)
