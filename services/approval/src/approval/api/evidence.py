"""Evidence of versions, and what external checks post about a request."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, model_validator

from approval.answers import MAX_ANSWER, Answers, Asked, Said
from approval.api.common import After, Body, Callers, Comment, Limit, RequestId
from approval.evidence import Attached, Attachments, Piece, Version
from approval.files import MAX_FILE, Offer
from contracts.access import Action
from contracts.approval import Evidence
from contracts.payload import Digest, Identifier, Key, Line, ModelName, Text, VersionNumber, Workspace
from kit.auth import Principal
from kit.openapi import NO_TOKEN
from kit.problems import Problem

FileSize = Annotated[int, Field(ge=1, le=MAX_FILE)]
_WORD = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
MediaType = Annotated[str, Field(max_length=200, pattern=rf"^{_WORD}/{_WORD}(?:; ?{_WORD}={_WORD})?$")]
Url = Annotated[str, Field(max_length=2_000, pattern=r"^https?://[\x21-\x7e]+$")]
EvidenceId = Annotated[Identifier, Path()]
GateId = Annotated[str, Path(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class UploadBody(Body):
    """`workspace`: where the file will be attached."""

    digest: Digest
    size: FileSize
    media_type: MediaType | None = None
    workspace: Workspace = "default"


class EvidenceBody(Body):
    """A file that was uploaded (`digest`, `size`), a link (`url`), or what a check found (`result`); also together."""

    workspace: Workspace = "default"
    model: ModelName
    version: VersionNumber
    type: Key
    title: Line
    digest: Digest | None = None
    size: FileSize | None = None
    media_type: MediaType | None = None
    url: Url | None = None
    result: Literal["pass", "fail", "inconclusive"] | None = None
    detail: Comment = ""

    @model_validator(mode="after")
    def _complete(self) -> "EvidenceBody":
        if self.digest is None and self.url is None and self.result is None:
            raise ValueError("give a digest, a url or a result")
        if (self.digest is None) != (self.size is None):
            raise ValueError("a file has a digest and a size")
        return self


class EvidenceDocument(Evidence):
    """`file`: where its file is, if it has one."""

    workspace: str
    model: str
    version: int
    file: str | None


class EvidenceList(BaseModel):
    items: list[EvidenceDocument]
    next: str | None


class AnswerBody(Body):
    """Which question it answers is part of what is signed, so that the answer is good for no other."""

    request_id: Identifier
    gate: Line
    result: Literal["pass", "fail", "inconclusive"]
    message: Text = ""
    evidence: Digest | None = None
    request_digest: Digest


class AnswerDocument(BaseModel):
    """`status` is that of the request, now."""

    request_id: str
    gate: str
    result: str
    request_digest: str
    status: str


def router(callers: Callers, attachments: Attachments, answers: Answers) -> APIRouter:
    api = APIRouter()
    guard = callers.guard

    async def readable(evidence_id: str, principal: Principal) -> Attached:
        found = await attachments.piece(evidence_id)
        guard.require(principal, Action.READ, *found.version.place)
        return found

    @api.post("/v1/evidence/uploads", tags=["evidence"], summary="Where to send a file, before it is attached")
    async def upload(http: Request, body: UploadBody) -> Offer:
        principal = await guard(http)
        if not guard.access.patterns(principal, Action.ATTEST, body.workspace):
            guard.require(principal, Action.ATTEST, body.workspace)
        return await attachments.offer(body.digest, body.size, principal, media_type=body.media_type)

    @api.post(
        "/v1/evidence",
        tags=["evidence"],
        summary="Attach a file, a link or a check's finding",
        status_code=201,
        responses={200: {"model": EvidenceDocument, "description": "The caller attached the same before"}},
    )
    async def attach(http: Request, body: EvidenceBody, response: Response) -> EvidenceDocument:
        """201 for a new piece, 200 when the caller attached the same before."""
        principal = await guard(http)
        guard.require(principal, Action.ATTEST, body.workspace, body.model)
        version = Version(body.workspace, body.model, body.version)
        piece = Piece(**body.model_dump(exclude={"workspace", "model", "version"}))
        attached = await attachments.attach(version, piece, principal)
        response.status_code = 201 if attached.new else 200
        return _document(attached)

    @api.get("/v1/evidence", tags=["evidence"], summary="Evidence of a version, the latest first")
    async def list_evidence(
        http: Request,
        model: Annotated[ModelName, Query()],
        version: Annotated[VersionNumber, Query()],
        workspace: Annotated[Workspace, Query()] = "default",
        limit: Limit = 100,
        after: After = None,
    ) -> EvidenceList:
        principal = await guard(http)
        guard.require(principal, Action.READ, workspace, model)
        items, following = await attachments.pieces(Version(workspace, model, version), limit=limit, after=after)
        return EvidenceList(items=[_document(one) for one in items], next=following)

    @api.get("/v1/evidence/{evidence_id}", tags=["evidence"], summary="One piece of evidence")
    async def get_evidence(http: Request, evidence_id: EvidenceId) -> EvidenceDocument:
        return _document(await readable(evidence_id, await guard(http)))

    @api.get(
        "/v1/evidence/{evidence_id}/file",
        tags=["evidence"],
        summary="The file: redirects to where it can be downloaded",
        response_class=RedirectResponse,
        status_code=307,
    )
    async def file(http: Request, evidence_id: EvidenceId) -> RedirectResponse:
        found = await readable(evidence_id, await guard(http))
        return RedirectResponse(attachments.url(found), status_code=307, headers={"cache-control": "no-store"})

    async def signers(http: Request) -> frozenset[str]:
        body = await http.body()
        if len(body) > MAX_ANSWER:
            raise Problem(413, "body-too-large", f"an answer may have {MAX_ANSWER} bytes")
        return answers.signers(http.headers, body)

    @api.post(
        "/v1/requests/{request_id}/gates/{gate:path}/answers",
        tags=["requests"],
        summary="An external check answers, signed as a Standard Webhooks message",
        openapi_extra=NO_TOKEN,
    )
    async def answer(
        request_id: RequestId, gate: GateId, body: AnswerBody, signed: Annotated[frozenset[str], Depends(signers)]
    ) -> AnswerDocument:
        """No token: the message is signed with the gate's secret, and good for five minutes."""
        if (body.request_id, body.gate) != (request_id, gate):
            raise Problem(403, "wrong-question", f"the answer is signed for {body.gate} of request {body.request_id}")
        said = Said(body.result, body.message, body.evidence)
        request = await answers.record(Asked(request_id, gate, body.request_digest), said, signed)
        return AnswerDocument(
            request_id=request_id,
            gate=gate,
            result=said.result,
            request_digest=body.request_digest,
            status=request.status,
        )

    return api


def _document(attached: Attached) -> EvidenceDocument:
    one, version = attached.evidence, attached.version
    return EvidenceDocument(
        **one.model_dump(),
        workspace=version.workspace,
        model=version.model,
        version=version.version,
        file=f"/v1/evidence/{one.evidence_id}/file" if one.digest else None,
    )
