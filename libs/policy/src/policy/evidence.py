"""Evidence of a version: which pieces a request is judged by, and for what a piece counts."""

from collections.abc import Mapping
from typing import Any, Literal

from policy.document import Policy
from policy.gates import compiled

Whose = Literal["candidate", "baseline"]
VERSIONS: tuple[Whose, ...] = ("candidate", "baseline")
Piece = Mapping[str, Any]


def marked(version: Mapping[str, Any], requester: str) -> dict[str, Any]:
    """The version, each piece of its evidence with whether it is verified."""
    author = version.get("registered_by") or ""

    def mark(piece: Piece) -> dict[str, Any]:
        return {**piece, "verified": verified(piece, author, requester)}

    evidence = {kind: mark(piece) for kind, piece in version["evidence"].items()}
    return {**version, "evidence": evidence, "attestations": [mark(piece) for piece in version["attestations"]]}


def shown(version: Mapping[str, Any], whose: Whose, policies: list[Policy]) -> dict[str, Any]:
    """The version with the evidence that these policies look at, and no other: what nobody asks for must not void
    votes."""
    wanted = _kinds(policies, whose)
    if wanted is None:
        return {**version}
    evidence = {kind: piece for kind, piece in version["evidence"].items() if kind in wanted}
    attestations = [piece for piece in version["attestations"] if piece["type"] in wanted]
    return {**version, "evidence": evidence, "attestations": attestations}


def _kinds(policies: list[Policy], whose: Whose) -> frozenset[str] | None:
    """The types of evidence that these policies name; None when an expression may look at any."""
    found = set[str]()
    for spec in (policy.spec for policy in policies):
        asked = [spec.match.when, *(rule.when for rule in spec.approvals.rules), *(gate.cel for gate in spec.gates)]
        named = frozenset[str]().union(*(compiled(one).names for one in asked if one is not None))
        if named & {f"{whose}.evidence", f"{whose}.attestations"}:
            return None
        if whose == "candidate":
            found |= {*spec.request.evidence, *(gate.attestation.type for gate in spec.gates if gate.attestation)}
    return frozenset(found)


def verified(piece: Piece, author: str, requester: str) -> bool:
    """Whether a check passed, by the word of a service that neither made nor asks for it, with a file."""
    passed = piece["result"] == "pass" and bool(piece["service"]) and bool(piece["digest"])
    return passed and impartial(piece["posted_by"], author, requester)


def impartial(poster: str, author: str, requester: str) -> bool:
    return poster.casefold() not in (author.casefold(), requester.casefold())


def counts(piece: Piece) -> bool:
    """Whether it is evidence at all: a file or a link, that does not speak against the version."""
    return bool(piece.get("digest") or piece.get("url")) and piece.get("result") != "fail"
