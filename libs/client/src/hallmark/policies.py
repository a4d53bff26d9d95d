"""Policies: read, check and publish them, and see what they would do."""

from collections.abc import Mapping
from typing import Any, Literal

from hallmark.approval_results import Explanation, Mistake, PolicyChange, PolicyCheck, PolicyRevision, Simulation
from hallmark.connection import Connection, read
from hallmark.errors import HallmarkError

INVALID = "invalid-policy"


class Policies(Connection):
    """Every method raises `HallmarkError`."""

    def policies(self, name: str | None = None) -> list[PolicyRevision]:
        """The revisions in force, by name; with a `name` all revisions of that policy, the newest first."""
        return list(self._pages("approval", "/v1/policies", PolicyRevision, name=name))

    def policy(self, name: str, revision: int | None = None) -> PolicyRevision:
        """One revision of a policy; by default the one in force.

        Raises:
            HallmarkError: code `policy-not-found`, `revision-not-found`.
        """
        found = self.policies(name)
        if not found:
            raise HallmarkError("policy-not-found", f"there is no policy {name}; hallmark policy list names them")
        for one in found:
            if revision in (None, one.revision):
                return one
        raise HallmarkError("revision-not-found", f"policy {name} has the revisions 1 to {found[0].revision}")

    def publish_policy(self, document: str, reason: str = "") -> PolicyChange:
        """Asks for a policy (YAML): the first revision of its name, or the next. Needs an administrator's token.

        Policies are changed under the policies in force: unless `published`, others have to approve the request of
        `request_id`. Asking again for the same gives the same request.

        Raises:
            HallmarkError: code `invalid-policy` (`extra["errors"]` has line, field and message of each mistake),
                `change-pending`, `policies-locked`.
        """
        body = {"document": document, "reason": reason or None}
        return read(PolicyChange, self._post("approval", "/v1/policies", body))

    def check_policy(self, document: str) -> PolicyCheck:
        """Whether a document is a policy, as the service reads it."""
        try:
            response = self._post("approval", "/v1/policies/check", {"document": document})
        except HallmarkError as error:
            if error.code != INVALID:
                raise
            return mistakes_of(error)
        return read(PolicyCheck, response)

    def explain_policy(
        self,
        model: str,
        version: int,
        to: str,
        *,
        from_stage: str | None = None,
        kind: Literal["promotion", "rollback", "alias"] | None = None,
        reason: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> Explanation:
        """What the policies in force would ask if the caller asked for this now: nothing is asked for yet.

        `to`: a stage, or `@` and an alias. `kind`: promotion (by default), rollback or alias.
        """
        body: dict[str, Any] = {
            "workspace": self.workspace,
            "model": model,
            "version": version,
            "to": to,
            "from": from_stage,
            "kind": kind,
            "reason": reason or None,
            "fields": dict(fields) if fields else None,
        }
        return read(Explanation, self._post_about_version("/v1/policies/explain", body))

    def simulate_policy(self, document: str, *, last: int = 50) -> Simulation:
        """How this policy would have decided the last requests (1 to 500) that were decided and that the caller may
        read; a policy about policies, the last changes of policies."""
        return read(Simulation, self._post("approval", "/v1/policies/simulate", {"document": document, "last": last}))


def mistakes_of(error: HallmarkError) -> PolicyCheck:
    """What an `invalid-policy` error says is wrong, and where."""
    found = [Mistake.model_validate(one) for one in error.extra.get("errors", ())]
    return PolicyCheck(errors=found or [Mistake(line=1, field="", message=error.detail)])
