"""Publishing policies: immutable revisions, numbered per name, addressed by the digest of their content.

A change of a policy is a request like any other, judged by the policies in force that are about policies.
"""

from dataclasses import dataclass
from datetime import UTC
from importlib import resources

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, domain, standing, views
from approval.changes import OPEN_FOR, locked
from approval.desk import LOCKED, SYSTEM, Desk
from approval.domain import Request
from contracts.approval import PolicyProposed, PolicyPublished, PolicyRef
from contracts.envelope import new_id
from kit.events import Cause, New
from kit.problems import Problem
from policy.document import Policy, parse


@dataclass(frozen=True)
class Proposed:
    """`request` is None when the revision in force says the same already."""

    ref: PolicyRef
    request: Request | None


class Revisions:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def propose(self, text: str, by: str, reason: str = "") -> Proposed:
        """Asks for the next revision of the policy that `text` names; it is in force once those whom the policies about
        policies ask have approved. Asking again for what the same person has asked for gives the same request.

        Raises:
            PolicyError: the text is no policy.
            Problem: 409, nobody could change policies any more, or another change of it is open.
        """
        policy = parse(text)
        async with self._desk.db.transaction() as tx:
            stream = domain.policy_stream(policy.name)
            await self._desk.log.lock(tx, domain.POLICIES)
            last = await self._desk.log.lock(tx, stream)
            revisions = await views.policies(tx, name=policy.name)
            if revisions and revisions[0].digest == policy.digest:
                return Proposed(views.ref_of(revisions[0]), None)
            number = revisions[0].revision + 1 if revisions else 1
            ref = PolicyRef(name=policy.name, revision=number, digest=policy.digest)
            for request_id in await views.open_requests(tx, "*", policy.name):
                request = await self._desk.known(tx, request_id)
                if isinstance(request.opened, PolicyProposed) and request.opened.policy == ref:
                    return Proposed(ref, request)
                detail = f"request {request_id} wants to change {policy.name} too; decide or withdraw it first"
                raise Problem(409, "change-pending", detail)
            await self._keeps_changeable(tx, policy)
            return Proposed(ref, await self._open(tx, last, policy, ref, by, reason))

    async def _open(
        self, tx: AsyncConnection, last: int, policy: Policy, ref: PolicyRef, by: str, reason: str
    ) -> Request:
        at, request_id = await self._desk.clock(tx), str(new_id())
        asked = {
            "transition_id": request_id,
            "kind": "policy",
            "from": f"revision {ref.revision - 1}",
            "to": f"revision {ref.revision}",
            "reason": reason,
            "requested_by": by,
            "fields": {},
            "change_class": binding.CHANGE_CLASS,
            "expires_at": (at + OPEN_FOR).astimezone(UTC).isoformat(),
        }
        bound = await binding.of_proposal(tx, request_id, ref, asked, opened_at=at, at=at)
        opened = PolicyProposed(
            request_id=request_id,
            policy=ref,
            document=policy.text,
            requested_by=by,
            reason=reason or "none given",
            policies=bound.policies,
            inputs=bound.inputs,
            inputs_digest=bound.inputs_digest,
            request_digest=bound.request_digest,
            expires_at=bound.expires_at,
        )
        return await self._desk.begin(tx, last, opened, at, Cause(by))

    async def withdraw(self, request_id: str, by: str, *, anybodys: bool = False) -> Request:
        """Takes a change that is still open back.

        Raises:
            Problem: 403, 404, 409.
        """
        async with self._desk.opened(request_id, Cause(by)) as of:
            opened = of.request.opened
            if not isinstance(opened, PolicyProposed):
                raise Problem(409, "not-a-policy", "cancel the transition in the registry")
            if opened.requested_by != by and not anybodys:
                raise Problem(403, "forbidden", f"it is {opened.requested_by}'s request")
            if of.request.status == domain.OPEN:
                await self._desk.close(of, "withdrawn", f"withdrawn by {by}")
                await self._desk.advance(of)
            elif of.request.status != domain.CANCELLED:
                raise Problem(409, "request-closed", f"the request is {of.request.status} already")
        return of.request

    async def bootstrap(self) -> None:
        """Publishes the policies that ship with the service when there is none at all; replicas do it once.

        Views that a migration has emptied are folded first.
        """
        async with self._desk.db.transaction() as tx:
            await self._desk.log.lock(tx, domain.POLICIES)
            if await views.restore(tx, self._desk.log):
                await standing.restore(tx, await self._desk.clock(tx))
            if await views.policies(tx):
                return
            at = await self._desk.clock(tx)
            for policy in shipped():
                stream = domain.policy_stream(policy.name)
                last = await self._desk.log.lock(tx, stream)
                ref = PolicyRef(name=policy.name, revision=1, digest=policy.digest)
                event = PolicyPublished(policy=ref, document=policy.text, published_by=SYSTEM)
                for envelope in await self._desk.log.append(tx, stream, last, [New(event, stream)], Cause(SYSTEM), at):
                    await views.project(tx, envelope)

    async def _keeps_changeable(self, tx: AsyncConnection, policy: Policy) -> None:
        """Raises Problem when nobody could change policies any more."""
        together = [policy, *await views.others_than(tx, policy.name)]
        if none_could := locked(together, await self._desk.clock(tx)):
            raise Problem(409, LOCKED, none_could)


def shipped() -> list[Policy]:
    """The default policies, from the package's data."""
    files = resources.files("approval").joinpath("policies").iterdir()
    return [parse(f.read_text()) for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".yaml")]
