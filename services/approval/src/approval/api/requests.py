"""Requests: read them, vote, comment, waive, and what emergencies need."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import Field

from approval import delegations, domain, lists, standing, views
from approval.api.common import LOOK_AGAIN_SECONDS, After, Body, Callers, Comment, Filter, Limit, RequestId, Said, Words
from approval.api.common import status_named as named
from approval.api.documents import RequestDocument, RequestList, You, document, manifest
from approval.desk import Desk
from approval.emergency import Emergencies
from approval.people import People
from approval.revisions import Revisions
from approval.sight import Sight
from contracts.access import Action
from contracts.approval import Choice, RequestDecided, Vote
from contracts.members import Known
from contracts.payload import Digest, Key, Line
from kit.auth import Principal
from kit.problems import Problem
from policy.case import Ballot, Person, Refusal

MOST_DELEGATORS = 20  # for whom somebody votes at the same time; of more, those who delegated last


class VoteBody(Body):
    """`rule` chooses among several rules that the voter's groups answer for; by default one that still needs people."""

    choice: Choice
    comment: Comment = ""
    request_digest: Digest | None = None
    rule: Key | None = None
    on_behalf_of: Line | None = None


class CommentBody(Body):
    text: Words


class WaiverBody(Body):
    gate: Line
    reason: Said
    request_digest: Digest | None = None


class ReasonBody(Body):
    reason: Said


class ReviewBody(Body):
    justified: bool
    comment: Said


Wait = Annotated[float, Query(ge=0, le=30, allow_inf_nan=False)]
Why = Annotated[str, Query(max_length=2_000, pattern=r"^[^\x00]*$")]
View = Literal["all", "needs-me", "asked"]
Status = Annotated[str | None, Query(max_length=50), Field(examples=["open", "approved"])]


def router(desk: Desk, callers: Callers, people: People, emergencies: Emergencies, revisions: Revisions) -> APIRouter:
    api = APIRouter(tags=["requests"])
    guard, db = callers.guard, desk.db

    async def shown(request_id: str, principal: Principal) -> RequestDocument:
        async with db.snapshot() as tx:
            request = await desk.known(tx, request_id)
            callers.require_read(principal, request)
            sight = await desk.sights.of(tx, request, await desk.clock(tx))
            place = await standing.of_requests(tx, [request_id])
            you = await _you(request, principal, tx, sight)
            return document(request, sight, place.get(request_id), you)

    async def _you(request: domain.Request, principal: Principal, tx: Any, sight: Sight) -> You:
        person, ballot = callers.person(principal, request.place), Ballot(Choice.APPROVE)

        async def said_to(on_behalf_of: str | None) -> Vote | Refusal | None:
            return await people.judge(tx, request, person, ballot, sight.at, on_behalf_of, sight)

        said = await said_to(None)
        lent = await delegations.delegators(tx, person.subject, sight.at, MOST_DELEGATORS)
        behalf = [one for one in lent if isinstance(await said_to(one), Vote)]
        voted = any(vote.voter == person.subject for vote in request.votes)
        if isinstance(said, Refusal):
            return You(may_vote=bool(behalf), code=said.code, detail=said.detail, on_behalf_of=behalf, voted=voted)
        return You(may_vote=isinstance(said, Vote), on_behalf_of=behalf, voted=voted)

    @api.get("/v1/requests", summary="Requests the caller may read")
    async def list_requests(
        http: Request,
        view: View = "all",
        status: Status = None,
        workspace: Filter = None,
        model: Filter = None,
        limit: Limit = 50,
        after: After = None,
    ) -> RequestList:
        """`all` and `asked` (by the caller): newest first. `needs-me`: what waits for the caller's vote, waiver or
        review, also by delegation, oldest first. `status` takes the words of other registries too. A page may be short
        though there is a next one."""
        principal = await guard(http)
        reads = guard.access.grants(principal, Action.READ)
        wanted = named(status)
        async with db.snapshot() as tx:
            at = await desk.clock(tx)
            place = await _place(tx, after)
            if view == "needs-me":
                voices = await _voices(tx, principal, at)
                votes = voices[0].votes if voices else frozenset()
                # Whoever may vote may read, but for a token that is older than the groups.
                sections = lists.readable(votes if votes <= reads else reads, workspace, model)
                page = await lists.inbox(tx, sections, voices, status=wanted, after=place, limit=limit)
            else:
                sections = lists.readable(reads, workspace, model)
                mine = principal.subject if view == "asked" else None
                page = await lists.requests(tx, sections, status=wanted, asked_by=mine, after=place, limit=limit)
            found = await views.requests_named(tx, page.request_ids)
            places = await standing.of_requests(tx, page.request_ids)
            glances = await desk.sights.glances(tx, found, at)
            items = [document(r, glance, places.get(r.request_id)) for r, glance in zip(found, glances, strict=True)]
        return RequestList(items=items, next=page.next[1] if page.next else None)

    async def _place(tx: Any, after: str | None) -> lists.Place | None:
        place = await views.opened(tx, after) if after is not None else None
        if after is not None and place is None:
            raise Problem(404, "request-not-found", f"no request {after} to go on after")
        return place

    async def _voices(tx: Any, principal: Principal, at: datetime) -> list[lists.Voice]:
        """The caller, and those who delegated to them, as far as they may vote anywhere; none where the caller may not,
        like a service account."""
        lent = await delegations.delegators(tx, principal.subject, at, MOST_DELEGATORS)
        known = await views.members(tx, lent)
        own = await people.directory.counting(tx, callers.person(principal, ("*", "*")), ("*", "*"))

        def voice(who: Person | Known) -> lists.Voice:
            return lists.Voice(who.subject, who.groups, who.email, lent.get(who.subject), desk.sights.votes(who))

        mine = voice(own)
        return [one for one in (mine, *map(voice, known.values())) if one.votes] if mine.votes else []

    @api.get("/v1/requests/{request_id}", summary="One request; waits until it is decided")
    async def get_request(http: Request, request_id: RequestId, wait: Wait = 0) -> RequestDocument:
        principal = await guard(http)
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            left = until - clock()
            try:
                found = await shown(request_id, principal)
                if found.status != domain.OPEN or left <= 0:
                    return found
            except Problem as problem:
                # It may be on its way from the registry.
                if problem.status != 404 or left <= 0:
                    raise
            await db.changed.wait(min(left, LOOK_AGAIN_SECONDS))

    @api.post("/v1/requests/{request_id}/votes", summary="Approve or reject")
    async def vote(http: Request, request_id: RequestId, body: VoteBody) -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        ballot = Ballot(body.choice, body.comment, body.request_digest, body.rule)
        whose = await guard.named(body.on_behalf_of) if body.on_behalf_of else None
        await people.vote(request_id, callers.person(principal, request.place), ballot, whose)
        return await shown(request_id, principal)

    @api.delete("/v1/requests/{request_id}/votes", summary="Withdraw one's vote")
    async def withdraw_vote(http: Request, request_id: RequestId, reason: Why = "") -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        await people.withdraw(request_id, callers.person(principal, request.place), reason)
        return await shown(request_id, principal)

    @api.post("/v1/requests/{request_id}/comments", summary="Comment")
    async def comment(http: Request, request_id: RequestId, body: CommentBody) -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        if request.kind == "policy" and not guard.access.grants(principal, Action.READ):
            raise Problem(403, "forbidden", f"{principal.subject} has no role; whoever comments needs one")
        await people.comment(request_id, principal.subject, body.text)
        return await shown(request_id, principal)

    @api.post("/v1/requests/{request_id}/waivers", summary="Let the request pass though a gate does not")
    async def waive(http: Request, request_id: RequestId, body: WaiverBody) -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        person = callers.person(principal, request.place)
        await people.waive(request_id, person, body.gate, body.reason, body.request_digest)
        return await shown(request_id, principal)

    @api.post("/v1/requests/{request_id}/break-glass", summary="Let the request pass in an emergency")
    async def break_glass(http: Request, request_id: RequestId, body: ReasonBody) -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        await emergencies.break_glass(request_id, callers.person(principal, request.place), body.reason)
        return await shown(request_id, principal)

    @api.post("/v1/requests/{request_id}/reviews", summary="Say of an emergency whether it was one")
    async def review(http: Request, request_id: RequestId, body: ReviewBody) -> RequestDocument:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        person = callers.person(principal, request.place)
        await emergencies.review(request_id, person, justified=body.justified, comment=body.comment)
        return await shown(request_id, principal)

    @api.post("/v1/requests/{request_id}/withdraw", summary="Take an open change of policy back")
    async def withdraw(http: Request, request_id: RequestId) -> RequestDocument:
        principal = await guard(http)
        await callers.request(request_id, principal)
        manages = callers.may(principal, Action.MANAGE, ("*", "*"))
        await revisions.withdraw(request_id, principal.subject, anybodys=manages)
        return await shown(request_id, principal)

    @api.get("/v1/requests/{request_id}/record", summary="All that it takes to judge the decision again")
    async def record(http: Request, request_id: RequestId) -> RequestDecided:
        principal = await guard(http)
        request = await callers.request(request_id, principal)
        if request.decision is None or request.jws is None:
            why = "a change of a policy" if request.kind == "policy" else f"a request that is {request.status}"
            raise Problem(409, "not-decided", f"{why} has no signed decision")
        async with db.snapshot() as tx:
            policies = await views.bound_policies(tx, request.policies)
        documents = {ref.digest: policy.text for ref, policy in policies}
        return RequestDecided(decision=request.decision, jws=request.jws, inputs=request.inputs, documents=documents)

    @api.get("/v1/requests/{request_id}/manifest", summary="The signatures, to print", response_class=PlainTextResponse)
    async def signatures(http: Request, request_id: RequestId) -> str:
        principal = await guard(http)
        return manifest(await callers.request(request_id, principal))

    return api
