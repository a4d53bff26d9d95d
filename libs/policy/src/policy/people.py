"""People: who may vote, which votes count, and separation of duties. Judged when a vote is cast, and once more when the
decision is made, since groups, delegations and the request itself may have changed in between.

Four eyes cannot be switched off: the requester and the author of the version never count, nor does anything that is
not a person.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from contracts.approval import Choice, Vote
from contracts.slack import METHOD as CLICK
from policy.case import Ballot, Case, Members, Person, Refusal, names, nobody
from policy.needs import Needs, Rule
from policy.spec import ALWAYS_EXCLUDED


def excluded(case: Case, needs: Needs, members: Members = nobody) -> dict[str, Refusal]:
    """Who must not vote, by subject or e-mail address (both case-folded), and why."""
    return _excluded(case, needs.excluded, members)


def _excluded(case: Case, kinds: frozenset[str], members: Members) -> dict[str, Refusal]:
    found: dict[str, Refusal] = {}

    def own(code: str, who: str, what: str) -> None:
        refusal = Refusal(code, f"{who} {what}; another person must vote", recorded=True)
        found.update(dict.fromkeys(names(who, _email(who, members)), refusal))

    if "policy.last_editor" in kinds:
        for who in _editors(case):
            own("own-policy", who, "was the last to edit a policy that decides here")
    if "version.committers" in kinds:
        for who in (_candidate(case).get("lineage") or {}).get("committers") or ():
            own("own-commits", who, "has commits in this version")
    if author := _candidate(case).get("registered_by"):
        own("own-version", author, "registered this version")
    own("own-request", case.requested_by, "asked for this")
    return found


def _candidate(case: Case) -> Mapping[str, Any]:
    return case.inputs.get("candidate") or {}


def _editors(case: Case) -> tuple[str, ...]:
    return tuple(case.inputs["request"].get("policy_editors") or ())


def owners(case: Case) -> frozenset[str]:
    """Who asked for it, registered the version or edited the policies, by subject."""
    return frozenset({case.requested_by, _candidate(case).get("registered_by") or case.requested_by, *_editors(case)})


def barred(
    case: Case, needs: Needs, subject: str, email: str | None = None, members: Members = nobody
) -> Refusal | None:
    """Why this person must not vote on the case, if so."""
    return _among(excluded(case, needs, members), names(subject, email))


def _among(found: Mapping[str, Refusal], who: frozenset[str]) -> Refusal | None:
    return next((refusal for name, refusal in found.items() if name in who), None)


def electorate(case: Case, rule: Rule) -> frozenset[str]:
    """The groups that may vote for the rule: those it names, and those an escalation added."""
    return rule.groups | case.added.get(rule.id, frozenset())


def judged(
    case: Case,
    needs: Needs,
    voter: Person,
    ballot: Ballot,
    at: datetime,
    principal: Person | None = None,
    members: Members = nobody,
) -> Vote | Refusal | None:
    """The vote to record, the refusal, or None when this vote is recorded already (a double click is one vote).

    `principal`: on whose behalf, by a delegation that is in force; the right is theirs, the signature the voter's.
    `members`: of whom it tells by which addresses they must not vote.
    """
    if ballot.request_digest not in (None, case.request_digest):
        return Refusal("request-changed", "this is not the request you saw; read it again before you vote")
    whose = principal or voter
    behalf = principal.subject if principal else None
    case = replace(case, votes=tuple(v for v in case.votes if why_not(case, needs, v, at) is None))
    if any(v.choice is ballot.choice and _same(v, voter, principal) for v in case.votes):
        return None
    refusal = (
        barred(case, needs, voter.subject, voter.email, members)
        or barred(case, needs, whose.subject, whose.email, members)
        or _not_entitled(case, needs, voter, whose, ballot)
        or step_up(needs, voter, at)
        or _unfit(case, voter, whose, ballot)
    )
    if refusal is not None:
        return refusal
    rule = _rule_for(case, needs, whose, ballot)
    return Vote(
        voter=voter.subject,
        choice=ballot.choice,
        rule=rule.id if rule else "deny",
        meaning=rule.meaning if rule else "I object to this",
        comment=ballot.comment,
        at=at,
        auth_method=voter.method,
        request_digest=case.request_digest,
        groups=tuple(sorted(whose.groups)),
        on_behalf_of=behalf,
        authenticated_at=voter.authenticated_at,
        email=voter.email or None,
    )


def _same(vote: Vote, voter: Person, principal: Person | None) -> bool:
    """Whether that person has cast this vote, in the same name."""
    own = vote.on_behalf_of is None and principal is None
    lent = vote.on_behalf_of and principal and vote.on_behalf_of.casefold() == principal.subject.casefold()
    return bool(names(vote.voter, vote.email) & voter.names and (own or lent))


def _not_entitled(case: Case, needs: Needs, voter: Person, whose: Person, ballot: Ballot) -> Refusal | None:
    if not (voter.person and whose.person):
        return Refusal("service-account", f"{voter.subject} is a service account; only people vote", recorded=True)
    if whose is not voter and needs.delegation is None:
        return Refusal("delegation-not-allowed", "the policy lets nobody vote for somebody else", recorded=True)
    if not voter.may_vote:
        return Refusal(
            "not-an-approver",
            f"{voter.subject} has no role that lets them vote on this model, not even for others",
            recorded=True,
        )
    rules = [rule for rule in needs.rules if ballot.rule in (None, rule.id)]
    allowed = _may_deny(case, needs) if ballot.choice is Choice.REJECT else _electorates(case, rules)
    if not (whose.groups & allowed and whose.may_vote):
        wanted = ", ".join(sorted(allowed)) or "nobody"
        return Refusal("not-an-approver", f"{whose.subject} may not vote here; asked are: {wanted}", recorded=True)
    return None


def _electorates(case: Case, rules: Iterable[Rule]) -> frozenset[str]:
    return frozenset(group for rule in rules for group in electorate(case, rule))


def _may_deny(case: Case, needs: Needs) -> frozenset[str]:
    return frozenset(group for one in needs.denials for group in one.groups).union(*case.added.values())


def step_up(needs: Needs, voter: Person, at: datetime) -> Refusal | None:
    """A signature needs a fresh authentication by one of the policy's methods (21 CFR 11.200)."""
    within, methods = needs.authenticated_within, needs.methods
    # Nobody signs in for a click: it is never a fresh sign-in, and a policy that says nothing does not mean it.
    if voter.method == CLICK and (within is not None or methods is None or CLICK not in methods):
        return Refusal("authentication-too-weak", "the policy takes no votes by Slack; sign in to vote")
    if within is not None and at - voter.authenticated_at > within:
        minutes = within.total_seconds() / 60
        return Refusal(
            "authentication-too-old", f"sign in again: the policy wants a token of the last {minutes:g} minutes"
        )
    if methods is not None and not signed_by(voter.method, methods):
        wanted = " or ".join(sorted(methods)) or "a method that all policies accept (there is none)"
        return Refusal("authentication-too-weak", f"sign in by {wanted}; your token says {voter.method}")
    return None


def signed_by(method: str, methods: frozenset[str]) -> bool:
    """Whether one of the ways in which somebody signed in is one of these."""
    return not methods.isdisjoint(method.split())


def _unfit(case: Case, voter: Person, whose: Person, ballot: Ballot) -> Refusal | None:
    for vote in case.votes:
        if heard_of(vote) & (voter.names | whose.names):
            who = f"{vote.voter} for {vote.on_behalf_of}" if vote.on_behalf_of else vote.voter
            return Refusal("already-voted", f"there is a vote of {who} already; withdraw it first")
    if ballot.choice is Choice.REJECT and not ballot.comment.strip():
        return Refusal("comment-required", "say in 'comment' why you reject")
    return None


def _rule_for(case: Case, needs: Needs, whose: Person, ballot: Ballot) -> Rule | None:
    """The named rule, else the first of the person's rules that still needs somebody, else the first; None for an
    objection of somebody whom no rule asks."""
    mine = [r for r in needs.rules if whose.groups & electorate(case, r) and ballot.rule in (None, r.id)]
    votes = [v for v in case.votes if v.choice is Choice.APPROVE]
    short = (r for r in mine if sum(v.rule == r.id for v in votes) < r.count)
    return next(short, mine[0] if mine else None)


def why_not(case: Case, needs: Needs, vote: Vote, at: datetime, members: Members = nobody) -> str | None:
    """Why a recorded vote does not count now, or None when it does.

    What policies ask of approvals beyond four eyes takes no force from a rejection: of several policies the strictest
    wins, and another policy must not silence a veto.
    """
    if vote.request_digest != case.request_digest:
        return "the request has changed since"
    return (
        (_not_valid(needs, vote, at) if vote.choice is Choice.APPROVE else None)
        or _not_theirs(case, needs, vote, members)
        or _not_human(vote, members)
        or _not_electoral(case, needs, vote, members)
    )


def heard_of(vote: Vote, members: Members = nobody) -> frozenset[str]:
    """What the people go by of whom a vote is: the voter, and for whom they voted."""
    return _voter_of(vote, members) | whose_of(vote, members)


def _voter_of(vote: Vote, members: Members) -> frozenset[str]:
    return names(vote.voter, vote.email) | names(vote.voter, _email(vote.voter, members))


def whose_of(vote: Vote, members: Members = nobody) -> frozenset[str]:
    """What the person goes by whose right a vote uses."""
    lent = vote.on_behalf_of
    return names(lent, _email(lent, members)) if lent is not None else _voter_of(vote, members)


def _email(subject: str, members: Members) -> str | None:
    known = members(subject)
    return known.email if known is not None else None


def _not_valid(needs: Needs, vote: Vote, at: datetime) -> str | None:
    if needs.valid_for is not None and at - vote.at > needs.valid_for:
        return "the vote is older than the policy allows"
    if vote.on_behalf_of is not None and needs.delegation is None:
        return "the policy lets nobody vote for somebody else"
    return None


def _not_theirs(case: Case, needs: Needs, vote: Vote, members: Members) -> str | None:
    found = _excluded(case, needs.excluded if vote.choice is Choice.APPROVE else ALWAYS_EXCLUDED, members)
    who = _among(found, heard_of(vote, members))
    return who.detail if who else None


def _not_human(vote: Vote, members: Members) -> str | None:
    machines = [who for who in (vote.voter, vote.on_behalf_of) if who and (m := members(who)) and not m.person]
    return f"{machines[0]} is a service account" if machines else None


def _not_electoral(case: Case, needs: Needs, vote: Vote, members: Members) -> str | None:
    delegate = members(vote.voter) if vote.on_behalf_of else None
    if delegate is not None and not delegate.groups:
        return f"{vote.voter} has no role any more that lets them vote on this model"
    rule = needs.rule(vote.rule)
    if vote.choice is Choice.APPROVE and rule is None:
        return "the policy has no such rule"
    allowed = electorate(case, rule) if rule and vote.choice is Choice.APPROVE else _may_deny(case, needs)
    if _groups(vote, members) & allowed:
        return None
    return f"{vote.on_behalf_of or vote.voter} is in none of the groups {', '.join(sorted(allowed))} any more"


def _groups(vote: Vote, members: Members) -> frozenset[str]:
    """Of the person whose right is used: what is known now, else what they had when they voted."""
    known = members(vote.on_behalf_of or vote.voter)
    return known.groups if known is not None else frozenset(vote.groups)


def tally(case: Case, needs: Needs, at: datetime, members: Members = nobody) -> dict[str, int]:
    """How many approvals count for each rule."""
    have = {rule.id: 0 for rule in needs.rules}
    for vote in approvals(case, needs, at, members):
        have[vote.rule] += 1
    return have


def approvals(case: Case, needs: Needs, at: datetime, members: Members = nobody) -> tuple[Vote, ...]:
    """The approvals that count. A person counts once, whether they vote or are voted for."""
    return tuple(_once(_valid(Choice.APPROVE, case, needs, at, members), lambda vote: heard_of(vote, members)))


def denial(case: Case, needs: Needs, at: datetime, members: Members = nobody) -> Vote | None:
    """The rejection that ends the case, if there is one: the last of those that a policy counts."""
    ending = _ending(case, needs, at, members)
    return ending[-1] if ending else None


def counted(case: Case, needs: Needs, at: datetime, members: Members = nobody) -> tuple[Vote, ...]:
    """The votes by which the case is judged, in their order. Whoever judges by them again comes to the same, without
    news of anybody: who voted under several names is in it once."""
    against = (*_ending(case, needs, at, members), *_valid(Choice.REJECT, case, needs, at, members))
    rejections = _once(against, lambda vote: whose_of(vote, members))
    chosen = (*approvals(case, needs, at, members), *rejections)
    return tuple(vote for vote in case.votes if vote in chosen)


def _ending(case: Case, needs: Needs, at: datetime, members: Members) -> list[Vote]:
    """The rejections that are enough for one of the policies. Each counts as what it was cast, for the groups of then:
    who goes from one group that may reject to another neither takes it along nor takes it back."""
    against = _valid(Choice.REJECT, case, needs, at, members)
    for one in needs.denials:
        allowed = one.groups.union(*case.added.values())
        theirs = (vote for vote in against if allowed.intersection(vote.groups))
        found = _once(theirs, lambda vote: whose_of(vote, members))
        if len(found) >= one.count:
            return found
    return []


def _valid(choice: Choice, case: Case, needs: Needs, at: datetime, members: Members) -> list[Vote]:
    return [v for v in case.votes if v.choice is choice and why_not(case, needs, v, at, members) is None]


def _once(votes: Iterable[Vote], people: Callable[[Vote], frozenset[str]]) -> list[Vote]:
    """The first vote of each person."""
    found, heard = [], set[str]()
    for vote in votes:
        if not people(vote) & heard:
            heard |= people(vote)
            found.append(vote)
    return found
