"""A decision judged again, offline, from its record alone: was it signed by a key that counts, and does it follow from
the policies, the inputs and the votes it names?

What a record cannot tell (what a webhook answered, who was in which group) is taken from it and said to be so.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from contracts.approval import DECISION_TYPE, Decision, PolicyRef, RequestDecided
from contracts.canonical import canonical_json
from contracts.envelope import explain
from contracts.keys import not_counting
from policy.binding import digest_of_transition
from policy.document import Policy, digest_of, recorded
from policy.findings import Findings, Judgement
from policy.reader import PolicyError
from policy.retrial import retry
from policy.signature import BadSignature, Token, key_of, taken_apart, verify

UNREADABLE = "the decision cannot be read"
Bound = list[tuple[PolicyRef, Policy]]


def judge(record: Mapping[str, Any] | RequestDecided, keys: Mapping[str, Any]) -> Judgement:
    """Judges a decision again.

    Args:
        record: the payload of `request.decided`: decision, jws, inputs, documents.
        keys: the JWK Set of the approval service, with the keys that signed before (`exp`) and the revoked ones.

    Returns:
        named checks; never raises, whatever the record holds.
    """
    given = record.model_dump(mode="json") if isinstance(record, RequestDecided) else record
    found = Findings()
    decision = _decision(found, given)
    _signature(found, given, keys, decision)
    if decision is not None:
        inputs, policies = _inputs(found, given, decision), _policies(found, given, decision)
        if inputs is None or policies is None:
            found.unknown("verdict", "what it was decided on is not in the record")
        else:
            _retrial(found, decision, inputs, policies)
    return Judgement(tuple(found.checks), decision)


def _decision(found: Findings, given: Mapping[str, Any]) -> Decision | None:
    try:
        decision = Decision.model_validate_json(canonical_json(given["decision"]))
    except KeyError:
        found.failed("record", "it holds no decision")
    except ValidationError as error:
        found.failed("record", f"its decision is none: {explain(error)}")
    except (ValueError, TypeError, RecursionError) as error:
        found.failed("record", f"its decision is no JSON: {error}")
    else:
        alien = sorted(set(given) - set(RequestDecided.model_fields))
        why = f"it holds what no record does: {', '.join(map(str, alien))[:500]}" if alien else None
        found.say("record", why, f"decision {decision.decision_id} of {decision.decided_at.isoformat()}")
        return decision
    return None


# -- the signature ------------------------------------------------------------------------------------------------


def _signature(found: Findings, given: Mapping[str, Any], keys: Mapping[str, Any], decision: Decision | None) -> None:
    token = key = None
    try:
        token = taken_apart(str(given.get("jws") or ""), DECISION_TYPE)
        key = key_of(keys, token.kid)
        verify(token, key)
    except BadSignature as error:
        found.failed("signature", str(error))
    else:
        found.ok("signature", f"signed by the key {token.kid}")
    if key is None or decision is None:
        found.unknown("key", UNREADABLE if key is not None else "the key is not known")
    else:
        why = not_counting(key, decision.decided_at)
        found.say("key", why and why[1], "the key counted when the decision was made, and is not revoked")
    if token is None or decision is None:
        found.unknown("payload", UNREADABLE if token is not None else "the signature cannot be read")
    else:
        found.say("payload", _difference(token, given["decision"]), "what is signed is the decision, byte for byte")


def _difference(token: Token, decision: Any) -> str | None:
    if token.payload == canonical_json(decision):
        return None
    try:
        signed = Decision.model_validate_json(token.payload)
    except ValidationError:
        return "what is signed is no decision"
    # Fields are added with the years: a service may show an older decision with new ones that are empty.
    then = {name: v for name, v in decision.items() if name in signed.model_fields_set or v not in (None, [], {})}
    if token.payload == canonical_json(then):
        return None
    clear = Decision.model_validate_json(canonical_json(decision))
    names = [name for name in Decision.model_fields if getattr(signed, name) != getattr(clear, name)]
    return f"the signed decision has another {', '.join(names)}" if names else "what is signed is written otherwise"


# -- what it was decided on ---------------------------------------------------------------------------------------


def _inputs(found: Findings, given: Mapping[str, Any], decision: Decision) -> dict[str, Any] | None:
    inputs = given.get("inputs")
    try:
        if not isinstance(inputs, dict) or not inputs:
            problem = "the record holds no inputs"
        elif (digest := digest_of(inputs)) != decision.inputs_digest:
            problem = f"the inputs have the digest {digest}, the decision is on {decision.inputs_digest}"
        else:
            found.ok("inputs", f"the inputs are those of the decision ({digest})")
            found.say("transition", _other(inputs, decision), "the inputs are of exactly this transition")
            return inputs
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"the inputs are no JSON: {error}"
    found.failed("inputs", problem)
    return None


def _other(inputs: dict[str, Any], decision: Decision) -> str | None:
    """What of the inputs is of another transition."""
    request, candidate, model = (_map(inputs.get(name)) for name in ("request", "candidate", "model"))
    pairs = {
        "transition": (request.get("transition_id"), decision.transition_id),
        "kind": (request.get("kind"), str(decision.kind)),
        "model": (request.get("model"), decision.model),
        "from": (request.get("from"), str(decision.from_stage)),
        "to": (request.get("to"), str(decision.to_stage)),
        "requester": (request.get("requested_by"), decision.requested_by),
        "workspace": (model.get("workspace"), decision.workspace),
        "version": (candidate.get("version"), decision.version),
        "digest": (candidate.get("digest"), decision.digest),
        "artifact": (_map(candidate.get("artifact")).get("digest"), decision.artifact_digest),
    }
    if decision.baseline is not None:
        pairs["baseline"] = (_map(inputs.get("baseline")).get("version", 0), decision.baseline)
    told = [f"{name} {theirs!r} instead of {ours!r}" for name, (theirs, ours) in pairs.items() if theirs != ours]
    return f"the inputs are of another transition: {', '.join(told)}" if told else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _policies(found: Findings, given: Mapping[str, Any], decision: Decision) -> Bound | None:
    documents, problems = _map(given.get("documents")), []
    policies: Bound = []
    for ref in decision.policies:
        try:
            policy = recorded(str(documents[ref.digest]))
        except KeyError:
            problems.append(f"the record does not hold the document of {ref.name}")
            continue
        except PolicyError as error:
            problems.append(f"the document of {ref.name} is no policy: {error}")
            continue
        if (policy.name, policy.digest) != (ref.name, ref.digest):
            problems.append(f"the document of {ref.name} is that of {policy.name} with the digest {policy.digest}")
        policies.append((ref, policy))
    names = [ref.name for ref in decision.policies]
    problems += [f"{name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if alien := sorted(set(documents) - {ref.digest for ref in decision.policies}):
        problems.append(f"the record holds documents that the decision does not name: {', '.join(map(str, alien))}")
    told = ", ".join(f"{ref.name} revision {ref.revision}" for ref in decision.policies) or "there is none"
    found.say("policies", "; ".join(problems) or None, f"the documents are those of the decision: {told}")
    digest = digest_of_transition(decision, decision.policies, decision.inputs_digest)
    same = None if digest == decision.request_digest else f"its digest is {digest}, not {decision.request_digest}"
    found.say("request", same, "the request digest is that of this version, target, inputs and policies")
    return None if problems else policies


def _retrial(found: Findings, decision: Decision, inputs: dict[str, Any], policies: Bound) -> None:
    try:
        retry(found, decision, inputs, policies)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        found.failed("verdict", f"the inputs are not such as policies can be judged by: {error!r}"[:500])
