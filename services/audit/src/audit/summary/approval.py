"""What was asked for, judged, voted on, decided and revoked, and who may vote."""

from collections.abc import Iterable, Sequence

from audit.summary.common import because, gates, line, names, place, say, version, when
from contracts import approval


@say.register
def _(m: approval.PolicyPublished) -> str:
    agreed = f"; approved by {names(a.name for a in m.approved_by)}" if m.approved_by else ""
    return f"{m.published_by} published revision {m.policy.revision} of the policy {m.policy.name}{agreed}"


@say.register
def _(m: approval.PolicyProposed) -> str:
    what = f"revision {m.policy.revision} of the policy {m.policy.name}"
    return f"{m.requested_by} asked for {what} under {_policies(m.policies)}{because(m.reason)}"


@say.register
def _(m: approval.RequestOpened) -> str:
    fields = names(f"{name}={line(value)}" for name, value in sorted(m.fields.items()))
    given = f"; given: {fields}" if fields else ""
    asked = f"A request of {m.requested_by} to move {place(m)} was opened under {_policies(m.policies)}"
    return f"{asked}{because(m.reason)}{given}"


@say.register
def _(m: approval.RequestRebound) -> str:
    void = f"; the votes, waivers and emergencies of {names(m.voided)} count no more" if m.voided else ""
    return f"What the request rests on has changed{because(m.cause)}{void}"


@say.register
def _(m: approval.GatesEvaluated) -> str:
    return f"The gates {'passed' if m.passed else 'do not let it pass'}{gates(m.gates)}"


@say.register
def _(m: approval.GateAnswered) -> str:
    shown = f"; evidence {m.evidence[:19]}" if m.evidence else ""
    return f"{m.by} answered the gate {m.gate}: {m.result}{because(m.message)}{shown}"


@say.register
def _(m: approval.GateWaived) -> str:
    return _waived(m.waiver)


@say.register
def _(m: approval.VoteCast) -> str:
    vote = m.vote
    return f"{_voter(vote)} voted to {vote.choice} ({vote.meaning}, rule {vote.rule}){because(vote.comment)}"


@say.register
def _(m: approval.VoteWithdrawn) -> str:
    of = f" of {m.voter} for {m.on_behalf_of}" if m.on_behalf_of else ""
    return f"{m.by or m.voter} took the vote{of} back{because(m.reason)}"


@say.register
def _(m: approval.VoteRefused) -> str:
    return f"A vote of {m.voter} to {m.choice} was refused: {m.detail} ({m.code})"


@say.register
def _(m: approval.RequestCommented) -> str:
    return f"{m.author} commented{because(m.text)}"


@say.register
def _(m: approval.RequestEscalated) -> str:
    done = {
        "remind": "were reminded",
        "notify": "were told that the request waits",
        "add_approvers": f"may vote for the rule {m.rule} from now on",
    }[m.action]
    return f"{names(m.to) or 'Those who are asked'} {done}{because(m.ask)} (step {m.step})"


@say.register
def _(m: approval.RequestClosed) -> str:
    return f"The request ended without a decision: {m.detail} ({m.code})"


@say.register
def _(m: approval.GlassBroken) -> str:
    return _emergency(m.glass)


@say.register
def _(m: approval.ReviewGiven) -> str:
    found = "justified" if m.justified else "not justified"
    paged = f"; paged: {names(m.page)}" if m.page else ""
    after = "; the review is closed" if m.closes else "" if m.justified else "; the model is frozen"
    return f"{m.reviewer} found the emergency {found}{because(m.comment)}{paged}{after}"


@say.register
def _(m: approval.ReviewOverdue) -> str:
    paged = f"; paged: {names(m.page)}" if m.page else ""
    frozen = "; the model is not promoted until somebody has" if m.frozen else ""
    return f"Nobody has reviewed the emergency in time{paged}{frozen}"


@say.register
def _(m: approval.RequestDecided) -> str:
    d = m.decision
    voters = names(f"{_voter(v)} ({v.choice})" for v in d.votes)
    told = [f"votes: {voters}"] if voters else []
    told += [_waived(waiver) for waiver in d.waived]
    told += [f"{rule} was opened to {names(groups)}" for rule, groups in sorted(d.added_approvers.items())]
    told += [_emergency(d.break_glass)] if d.break_glass else []
    told += [f"a revocation returns to v{d.rollback_to}"] if d.rollback_to else []
    more = "".join(f"; {part}" for part in told)
    return f"The request of {d.requested_by} to move {place(d)} was {d.verdict}: {d.reason}{more}{gates(d.gates)}"


@say.register
def _(m: approval.ApprovalLapsed) -> str:
    if m.on_lapse == "moot":
        return f"The approval of {when(m.decided_at)} has lapsed; nothing rests on it any more"
    return f"The approval of {when(m.decided_at)} has lapsed: ask again"


@say.register
def _(m: approval.RevocationOrdered) -> str:
    r = m.revocation
    back = f"; its stage is to return to v{r.fallback}" if r.fallback else ""
    return f"{r.revoked_by} ordered that nobody uses {version(r)} any more{because(r.reason)}{back}"


@say.register
def _(m: approval.EvidenceAttached) -> str:
    e = m.evidence
    found = f", which says {e.result}{because(e.detail)}" if e.result else ""
    where = names(part for part in (e.digest and e.digest[:19], e.url) if part)
    return f"{e.posted_by} attached {e.type} to {version(m)}: {e.title}{f' ({where})' if where else ''}{found}"


@say.register
def _(m: approval.DelegationGranted) -> str:
    return f"{m.delegate} may vote for {m.delegator} from {when(m.starts)} to {when(m.ends)}{because(m.reason)}"


@say.register
def _(m: approval.DelegationEnded) -> str:
    return f"{m.ended_by} ended the delegation {m.delegation_id} of {m.delegator}"


@say.register
def _(m: approval.MembershipChanged) -> str:
    who = m.subject if m.person else f"The service account {m.subject}"
    return f"{who} is in {_groups(m.groups)} from now on, by {m.by}"


def _groups(groups: Sequence[str]) -> str:
    return f"the groups {names(groups)}" if groups else "no group"


def _policies(refs: Iterable[approval.PolicyRef]) -> str:
    return names(f"{ref.name} r{ref.revision}" for ref in refs) or "no policy"


def _voter(vote: approval.Vote) -> str:
    return f"{vote.voter} for {vote.on_behalf_of}" if vote.on_behalf_of else vote.voter


def _waived(waiver: approval.Waiver) -> str:
    return f"{waiver.by} waived the gate {waiver.gate}{because(waiver.reason)}"


def _emergency(glass: approval.BreakGlass) -> str:
    review = f"{glass.review_count} of {names(glass.review)} review it before {when(glass.review_by)}"
    paged = f"; paged: {names(glass.page)}" if glass.page else ""
    return f"{glass.by} broke the glass past {names(glass.skips)}{because(glass.reason)}{paged}; {review}"


@say.register
def _(m: approval.AccountLinked) -> str:
    return f"{m.subject} linked an account of {m.system}"


@say.register
def _(m: approval.AccountUnlinked) -> str:
    return f"{m.subject} unlinked an account of {m.system}"
