"""Evidence of a version: files, links, and what checks found. What is attached moves the model's open requests on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies, views
from approval.commands import Commands
from approval.desk import Desk
from approval.files import Files, Offer
from approval.tables import EvidenceRow, of
from contracts.approval import Evidence, EvidenceAttached
from contracts.envelope import Envelope, new_id
from contracts.lifecycle import stream_of, subject_of
from kit.auth import Principal
from kit.events import Cause, New
from kit.problems import Problem

_evidence = of(EvidenceRow)
MAX_PIECES = 1_000  # of one version
# What makes a piece the same as another one, of the same poster.
_SAME = ("type", "title", "digest", "url", "result", "posted_by")


@dataclass(frozen=True)
class Version:
    workspace: str
    model: str
    version: int

    @property
    def place(self) -> tuple[str, str]:
        return self.workspace, self.model

    def __str__(self) -> str:
        return subject_of(self.workspace, self.model, self.version)


@dataclass(frozen=True)
class Piece:
    """What a caller brings. `size` is that of the file of `digest`."""

    type: str
    title: str
    digest: str | None = None
    size: int | None = None
    media_type: str | None = None
    url: str | None = None
    result: Literal["pass", "fail", "inconclusive"] | None = None
    detail: str = ""


@dataclass(frozen=True)
class Attached:
    """A piece that a version has. `new`: it has come with this call."""

    version: Version
    evidence: Evidence
    new: bool = False


class Attachments:
    def __init__(self, desk: Desk, commands: Commands, files: Files | None) -> None:
        self._desk, self._commands, self._files = desk, commands, files

    async def offer(self, digest: str, size: int, by: Principal, *, media_type: str | None = None) -> Offer:
        """Where to send a file, before it is attached.

        Raises:
            Problem: 409, there is no store.
        """
        return await self._store().offer(digest, size, by.subject, media_type)

    async def attach(self, version: Version, piece: Piece, by: Principal) -> Attached:
        """Attaches a piece to a version, and moves the open requests of its model on, all at once.

        The same piece of the same poster is not attached again. What a check found is, when something else of its type
        has come since: the latest word counts.

        Raises:
            Problem: 404, the version is not known; 409, it has too much evidence, or there is no store; 422, the file
                was not uploaded, or is not what its digest says.
        """
        async with self._desk.db.snapshot() as tx:
            await _digest_of(tx, version)
        if piece.digest is not None:
            await self._store().keep(version.place, piece.digest, piece.size or 0, by.subject)
        stream = stream_of(*version.place)
        async with self._desk.db.transaction() as tx:
            last = await self._desk.log.lock(tx, stream)
            evidence = Evidence(
                evidence_id=str(new_id()),
                **asdict(piece),
                posted_by=by.subject,
                groups=tuple(sorted(by.groups)),
                service=by.kind != "person",
                at=await self._desk.clock(tx),
            )
            if known := await _same(tx, version, evidence):
                return Attached(version, known)
            if await _count(tx, version) >= MAX_PIECES:
                detail = f"{version} has {MAX_PIECES} pieces of evidence; no version may have more"
                raise Problem(409, "too-much-evidence", detail)
            if await _kinds(tx, version, evidence) > copies.MAX_EVIDENCE:
                detail = f"{version} has evidence of {copies.MAX_EVIDENCE} kinds and posters; gates see no more"
                raise Problem(409, "too-much-evidence", detail)
            message = EvidenceAttached(
                workspace=version.workspace,
                model=version.model,
                version=version.version,
                digest=await _digest_of(tx, version),
                evidence=evidence,
            )
            news = [New(message, str(version))]
            appended = await self._desk.log.append(tx, stream, last, news, Cause(by.subject), evidence.at)
            await self._moved_on(tx, appended, version)
        return Attached(version, evidence, new=True)

    async def _moved_on(self, tx: AsyncConnection, appended: Sequence[Envelope], version: Version) -> None:
        for envelope in appended:
            await views.project(tx, envelope)
            await self._commands.refresh(tx, envelope, *version.place)

    async def pieces(self, version: Version, *, limit: int, after: str | None) -> tuple[list[Attached], str | None]:
        """Evidence of a version, the latest first, and where the next page begins."""
        e = _evidence
        place = sa.tuple_(e.c.at, e.c.evidence_id)
        query = sa.select(e).where(*_of(version)).order_by(e.c.at.desc(), e.c.evidence_id.desc()).limit(limit + 1)
        if after is not None:
            start = sa.select(e.c.at, e.c.evidence_id).where(e.c.evidence_id == after)
            query = query.where(place < start.scalar_subquery())
        async with self._desk.db.snapshot() as tx:
            await _digest_of(tx, version)
            rows = (await tx.execute(query)).all()
        items = [_attached(row) for row in rows[:limit]]
        return items, items[-1].evidence.evidence_id if len(rows) > limit else None

    async def piece(self, evidence_id: str) -> Attached:
        """Raises Problem 404."""
        async with self._desk.db.snapshot() as tx:
            row = (await tx.execute(sa.select(_evidence).where(_evidence.c.evidence_id == evidence_id))).first()
        if row is None:
            raise Problem(404, "evidence-not-found", f"no evidence {evidence_id}")
        return _attached(row)

    def url(self, attached: Attached) -> str:
        """Where to download the file of a piece.

        Raises:
            Problem: 404, it has none; 409, there is no store.
        """
        one = attached.evidence
        if one.digest is None:
            raise Problem(404, "no-file", f"evidence {one.evidence_id} has no file")
        return self._store().url(attached.version.place, one.digest, one.title, one.media_type)

    def _store(self) -> Files:
        if self._files is None:
            raise Problem(409, "no-store", "this Hallmark keeps no files of evidence; the operator sets HALLMARK_S3_*")
        return self._files


def _of(version: Version) -> list[sa.ColumnElement[bool]]:
    return [_evidence.c[name] == value for name, value in asdict(version).items()]


def _attached(row: Any) -> Attached:
    return Attached(Version(row.workspace, row.model, row.version), Evidence.model_validate_json(row.data))


async def _digest_of(tx: AsyncConnection, version: Version) -> str:
    digests = await copies.digests(tx, version.workspace, version.model, version.version)
    if digests is None:
        raise Problem(404, "version-not-found", f"{version} is not registered; it may not have arrived yet")
    return digests[0]


async def _count(tx: AsyncConnection, version: Version) -> int:
    return await tx.scalar(sa.select(sa.func.count()).select_from(_evidence).where(*_of(version))) or 0


async def _kinds(tx: AsyncConnection, version: Version, more: Evidence) -> int:
    """How many types and posters there are, with one more piece."""
    said = sa.cast(_evidence.c.data, JSONB)
    known = sa.select(said["type"].as_string(), said["posted_by"].as_string()).where(*_of(version)).distinct()
    return len({(more.type, more.posted_by), *((row[0], row[1]) for row in await tx.execute(known))})


async def _same(tx: AsyncConnection, version: Version, evidence: Evidence) -> Evidence | None:
    """The piece that says the same already. A check's words are compared with the latest of its type alone: `fail`
    after `pass` after `fail` is news."""
    wanted = evidence.model_dump(mode="json", include=set(_SAME))
    alike = {"type": evidence.type} if evidence.result is not None else wanted
    found = sa.cast(_evidence.c.data, JSONB).contains(alike)
    latest = sa.select(_evidence.c.data).where(*_of(version), found)
    data = await tx.scalar(latest.order_by(_evidence.c.at.desc(), _evidence.c.evidence_id.desc()).limit(1))
    known = None if data is None else Evidence.model_validate_json(data)
    same = known is not None and known.model_dump(mode="json", include=set(_SAME)) == wanted
    return known if same else None
