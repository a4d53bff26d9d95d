"""Publishing policies: immutable revisions, numbered per name, addressed by the digest of their content."""

from dataclasses import dataclass
from importlib import resources

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import views
from approval.commands import SYSTEM
from approval.policy import Policy, parse
from contracts.approval import PolicyPublished, PolicyRef
from kit.db import Database
from kit.events import Cause, EventLog, New

_BOOTSTRAP = "policy:"


@dataclass(frozen=True)
class Published:
    """`new` is False when the current revision says the same already."""

    ref: PolicyRef
    new: bool


class Revisions:
    def __init__(self, db: Database, events: EventLog) -> None:
        self._db, self._log = db, events

    async def publish(self, text: str, by: str) -> Published:
        """Publishes the next revision of the policy that `text` names.

        Raises:
            PolicyError: the text is no policy.
        """
        policy = parse(text)
        async with self._db.transaction() as tx:
            return await self._publish(tx, policy, by)

    async def bootstrap(self) -> None:
        """Publishes the policies that ship with the service when there is none at all; replicas do it once."""
        async with self._db.transaction() as tx:
            await self._log.lock(tx, _BOOTSTRAP)
            if await views.policies(tx):
                return
            for policy in shipped():
                await self._publish(tx, policy, SYSTEM)

    async def _publish(self, tx: AsyncConnection, policy: Policy, by: str) -> Published:
        stream = f"policy:{policy.name}"
        last = await self._log.lock(tx, stream)
        revisions = await views.policies(tx, name=policy.name)
        if revisions and revisions[0].digest == policy.digest:
            return Published(views.ref_of(revisions[0]), new=False)
        number = revisions[0].revision + 1 if revisions else 1
        ref = PolicyRef(name=policy.name, revision=number, digest=policy.digest)
        event = PolicyPublished(policy=ref, document=policy.text, published_by=by)
        for envelope in await self._log.append(tx, stream, last, [New(event, stream)], Cause(by)):
            await views.project(tx, envelope)
        return Published(ref, new=True)


def shipped() -> list[Policy]:
    """The default policies, from the package's data."""
    files = resources.files("approval").joinpath("policies").iterdir()
    return [parse(f.read_text()) for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".yaml")]
