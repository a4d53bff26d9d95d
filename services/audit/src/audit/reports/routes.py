"""HTTP in: reports, search, and the explanation of a decision."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from audit import explain, search
from audit.answers import SearchPage
from audit.gaps import Gaps
from audit.paging import Document
from audit.params import Asked, AsKnown, At, OneWorkspace, Reader, Readers, Scope
from audit.pins import MAX_PIN, PinClaims, Pins
from audit.reports import answers, events, foureyes, leads, people
from audit.reports.explained import Explanation
from audit.reports.proving import Prove
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.payload import Line, ModelName, StageName, Target, VersionNumber
from kit.db import Database
from kit.problems import Problem

Where = Annotated[Scope, Depends()]
StageQuery = Annotated[StageName, Query(description="Any stage; capitals do not matter")]
MOMENT = timedelta(seconds=1) - timedelta(microseconds=1)


def router(db: Database, reader: Readers, pins: Pins, prove: Prove) -> APIRouter:
    """`reader` is the dependency of `params.readers`."""
    api = APIRouter()
    _about_versions(api, db, reader)
    _about_people(api, db, reader)
    _questions(api, db, reader, pins, prove)
    return api


def _about_versions(api: APIRouter, db: Database, reader: Readers) -> None:
    Who = Annotated[Reader, Depends(reader)]
    report: dict[str, Any] = {"tags": ["reports"]}
    walker = Gaps(db)

    @api.get(
        "/v1/reports/lead-times",
        summary="From registration to a stage: per version, and overall",
        response_model=answers.LeadTimes,
        **report,
    )
    async def lead_times(who: Who, where: Where, ask: Asked, stage: StageQuery = Stage.PRODUCTION.value) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await leads.lead_times(tx, place, stage, ask)

    @api.get(
        "/v1/reports/lead-times/models",
        summary="From registration to a stage: per model",
        response_model=answers.ModelLeadTimes,
        **report,
    )
    async def lead_times_of_models(
        who: Who, where: Where, ask: Asked, stage: StageQuery = Stage.PRODUCTION.value
    ) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await leads.lead_times_of_models(tx, place, stage, ask)

    @api.get(
        "/v1/reports/rollbacks",
        summary="Returns of a stage to an earlier version",
        response_model=answers.Rollbacks,
        **report,
    )
    async def rollbacks(who: Who, where: Where, ask: Asked) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await events.rollbacks(tx, place, ask)

    @api.get(
        "/v1/reports/revocations",
        summary="Versions that nobody may use any more",
        response_model=answers.Revocations,
        **report,
    )
    async def revocations(who: Who, where: Where, ask: Asked) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await events.revocations(tx, place, ask)

    @api.get("/v1/reports/gaps", summary="What streams skip, and what is wrong", response_model=answers.Gaps, **report)
    async def gaps(who: Who, ask: Asked) -> Document:
        await who.everything()
        missing = await events.offsets(walker) if ask.after is None else []
        async with db.snapshot() as tx:
            return {**await events.gaps(tx, ask), "offsets": missing}


def _about_people(api: APIRouter, db: Database, reader: Readers) -> None:
    Who = Annotated[Reader, Depends(reader)]
    report: dict[str, Any] = {"tags": ["reports"]}

    @api.get("/v1/reports/approvals", summary="Who approved or refused what", response_model=answers.Acts, **report)
    async def approvals(
        who: Who,
        where: Where,
        ask: Asked,
        person: Annotated[Line | None, Query()] = None,
        act: Annotated[answers.Act | None, Query()] = None,
        request: Annotated[Line | None, Query(description="A request or transition")] = None,
    ) -> Document:
        place, person = await who.place(where), await who.meant(person)
        async with db.snapshot() as tx:
            return await people.approvals(tx, place, person, act, request, ask)

    @api.get(
        "/v1/reports/approvals/people",
        summary="How often each person did what",
        response_model=answers.Approvers,
        **report,
    )
    async def approvers(who: Who, where: Where, ask: Asked) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await people.approvers(tx, place, ask)

    @api.get(
        "/v1/reports/four-eyes",
        summary="Entries into gated stages and of protected aliases, and attempts: whose eyes saw them",
        response_model=answers.FourEyes,
        **report,
    )
    async def four_eyes(
        who: Who,
        where: Where,
        ask: Asked,
        finding: Annotated[answers.Finding | None, Query(description="Only these")] = None,
        violations: Annotated[bool, Query(description="As finding=violation")] = False,
    ) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await foureyes.four_eyes(tx, place, "violation" if violations else finding, ask)

    @api.get(
        "/v1/reports/break-glass",
        summary="Emergencies, and who reviewed them",
        response_model=answers.Emergencies,
        **report,
    )
    async def emergencies(who: Who, where: Where, ask: Asked) -> Document:
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await people.emergencies(tx, place, ask)


def _questions(api: APIRouter, db: Database, reader: Readers, pins: Pins, prove: Prove) -> None:
    Who = Annotated[Reader, Depends(reader)]

    @api.get(
        "/v1/search", tags=["views"], summary="Full text, and parts of ids: newest first", response_model=SearchPage
    )
    async def find(
        who: Who,
        where: Where,
        ask: Asked,
        q: Annotated[str, Query(min_length=2, max_length=200, pattern=r"^[^\x00]*$")],
    ) -> Document:
        place, words = await who.place(where), await who.words(q)
        async with db.snapshot() as tx:
            return await search.find(tx, words, place, ask)

    @api.get(
        "/v1/explain",
        tags=["views"],
        summary="Which model made this decision? By model and instant, or by a pin that a server logged",
        response_model=Explanation,
    )
    async def explained(
        who: Who,
        known: AsKnown,
        workspace: OneWorkspace = "default",
        model: Annotated[ModelName | None, Query(description="Any name it has or had")] = None,
        at: At = None,
        target: Annotated[Target, Query(description="A stage, or @alias")] = Stage.PRODUCTION.value,
        version: Annotated[VersionNumber | None, Query(description="Of several that held it")] = None,
        pin: Annotated[str | None, Query(max_length=MAX_PIN)] = None,
        proofs: Annotated[bool, Query(description="With an inclusion proof of each fact")] = True,
    ) -> Document:
        if (model is None) == (pin is None):
            raise Problem(422, "invalid-request", "give either 'model' or 'pin'")
        claims = None if pin is None else await pins.read(pin)
        if claims is None:
            of = await who.model(workspace, str(model))
            question = explain.Question(workspace, of, target, (at or now(),), version)
        else:
            of = await who.model(claims.workspace, claims.model)
            # A pin tells its second only.
            instants = (claims.issued_at, claims.issued_at + MOMENT)
            question = explain.Question(claims.workspace, of, claims.target, instants, claims.version)
        async with db.snapshot() as tx:
            answer = await explain.explain(tx, question, known, auditor=who.audits())
        answer["pin"] = _pinned(claims, answer) if claims else None
        indexes = explain.indexes(answer)
        answer["proofs"] = await prove(indexes) if proofs and indexes else None
        return answer


def _pinned(claims: PinClaims, answer: Document) -> Document:
    said = claims.model_dump(exclude={"iat"}) | {"issued_at": claims.issued_at}
    digests = (claims.digest, claims.artifact_digest)
    stay = answer["stay"]
    agrees = stay is not None and (stay["digest"], stay["artifact_digest"]) == digests
    return {**said, "agrees": agrees}
