"""What votes bind to: the digest of a request, which anybody can compute from its decision and its inputs' digest."""

from collections.abc import Sequence

from contracts.approval import PolicyRef
from contracts.registry import Transition
from policy.document import digest_of


def digest_of_transition(asked: Transition, policies: Sequence[PolicyRef], inputs_digest: str) -> str:
    """Another version, policy, input, stage or transition gives another digest."""
    return digest_of(
        {
            "version_digest": asked.digest,
            "artifact_digest": asked.artifact_digest,
            "policy_digests": sorted(p.digest for p in policies),
            "inputs_digest": inputs_digest,
            "from": str(asked.from_stage),
            "to": str(asked.to_stage),
            "transition": asked.transition_id,
        }
    )


def digest_of_proposal(request_id: str, proposed: PolicyRef, policies: Sequence[PolicyRef], inputs_digest: str) -> str:
    """What votes on a change of policy bind to."""
    return digest_of(
        {
            "policy": proposed.model_dump(),
            "policy_digests": sorted(p.digest for p in policies),
            "inputs_digest": inputs_digest,
            "request": request_id,
        }
    )
