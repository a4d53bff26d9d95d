"""Evidence of a version: which pieces a request is judged by, and for what a piece counts."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from policy.document import Policy
from policy.gates import compiled

Whose = Literal["candidate", "baseline"]
VERSIONS: tuple[Whose, ...] = ("candidate", "baseline")
Piece = Mapping[str, Any]


def shown(version: Mapping[str, Any], whose: Whose, policies: list[Policy], requester: str) -> dict[str, Any]:
    """The version with the evidence that these policies look at, and no other: what nobody asks for must not void
    votes. Each piece tells whether it is verified."""
    wanted, author = _kinds(policies, whose), version.get("registered_by") or ""

    def marked(pieces: Iterable[Piece]) -> list[dict[str, Any]]:
        seen = (one for one in pieces if wanted is None or one["type"] in wanted)
        return [{**one, "verified": verified(one, author, requester)} for one in seen]

    evidence = {one["type"]: one for one in marked(version["evidence"].values())}
    return {**version, "evidence": evidence, "attestations": marked(version["attestations"])}


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
