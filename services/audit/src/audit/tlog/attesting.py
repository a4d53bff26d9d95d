"""What others add to a checkpoint, as the publisher asks for it: witnesses before it is out, a time stamp after."""

from audit.note import read_checkpoint, split_note
from audit.settings import AuditSettings
from audit.tlog.archive import Archive
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Attestation, Published
from audit.tlog.stamps import Stamper, stamper_of
from audit.tlog.witness import Witnesses, witnesses_of

STAMP = "application/timestamp-token"


def stamp_key(size: int) -> str:
    """Where the time stamp of a checkpoint lies, if it has one."""
    return f"checkpoints/{size}.tst"


def attestation(witnesses: Witnesses, stamper: Stamper, archive: Archive) -> Attestation:
    async def cosign(note: str, proofs: Proofs) -> str:
        size = read_checkpoint(split_note(note)[0]).size
        return await witnesses.cosign(note, lambda old: proofs.consistency(old, size))

    async def stamp(published: Published) -> None:
        key, token = stamp_key(published.checkpoint.size), await stamper.stamp(published.note)
        if token is not None:
            await archive.keep_first(key, token, content_type=STAMP)

    return Attestation(cosign, stamp)


def attestation_of(settings: AuditSettings, archive: Archive) -> Attestation:
    """Raises ValueError when the time stamping authority's certificates cannot be read."""
    return attestation(witnesses_of(settings), stamper_of(settings), archive)
