"""Whether policies can still be changed: a change is judged by the policies about policies, which must let some pass.

Policies do not tell how many people are in a group, and how these sign in. Where a group that they ask has too few, no
policy has to change: the operator lets more people in, where people sign in or by the directory (`PUT /v1/members`).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from policy.document import Policy, optional
from policy.schedule import next_open
from policy.spec import Spec

OPEN_FOR = timedelta(days=30)  # a request to change a policy
NO_POLICY = "no policy would be left that is about changes of every policy; nobody could change one any more"


def locked(policies: Iterable[Policy], at: datetime) -> str | None:
    """Why, with these in force, nobody could change policies any more: none is about every policy, or what those that
    are about one ask together can never be. None when changes can pass."""
    about = [policy.spec for policy in policies if policy.spec.match.transition.kind == "policy"]
    wide = [spec for spec in about if not spec.match.models]
    if not wide:
        return NO_POLICY
    sets = [wide, *([*wide, spec] for spec in about if spec not in wide)]
    return next((why for specs in sets if (why := _impassable(specs, at))), None)


def _impassable(specs: Sequence[Spec], at: datetime) -> str | None:
    methods = [{*spec.approvals.signature.methods} for spec in specs if spec.approvals.signature.methods]
    if methods and not set.intersection(*methods):
        return "the policies about policies would agree on no sign-in; nobody could vote on a change any more"
    wait = max((optional(spec.schedule.min_wait) or timedelta(0) for spec in specs), default=timedelta(0))
    lives = min([OPEN_FOR, *(after for spec in specs if (after := optional(spec.request.expires_after)))])
    if wait >= lives:
        return f"the policies about policies would let changes wait for {wait}, and expire after {lives}"
    if next_open([spec.schedule for spec in specs], at) is None:
        return "the policies about policies would let nothing pass in the next 400 days"
    return None
