"""Whose eyes saw a change, judged from what the log holds of it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

Document = dict[str, Any]
DOUBTS = ("undecided", "unapproved", "unverified", "unknown-author")


def judged(row: Document, made: Mapping[str, Any] | None, decision: Mapping[str, Any] | None) -> Document:
    """The row with the names of those who let it pass, and what is to be said of it.

    `made` is the version's registration, `decision` the signed decision that is in the log: None where there is none.
    Names are compared without their capitals. Whoever is voted for, or known by an e-mail address, counts by these
    too. `finding` is the first that is true:

    violation: who asked for the change, or made the version, approved it, waived a gate for it or broke the glass.
    refused: it was not let through, or a vote was refused; `problem` says why.
    undecided: a gated place was entered without a decision.
    unapproved: nobody's approval was asked for.
    unverified: no signed decision in the log says whose votes these were; waivers and emergencies cannot be known.
    unknown-author: the log holds no registration of the version, so that nobody knows whether its makers approved it.
    """
    votes = [vote for vote in (decision or {}).get("votes") or () if vote["choice"] == "approve"]
    waived = _names(waiver["by"] for waiver in (decision or {}).get("waived") or ())
    glass = (decision or {}).get("break_glass")
    approvers = _names(
        [approval["name"] for approval in row["approved_by"]]
        + [vote.get(name) for vote in votes for name in ("voter", "on_behalf_of", "email")]
    )
    authors = _names([made["registered_by"], *(made["committers"] or ())] if made else ())
    requester = [row["requested_by"]] if row["entered"] else []
    alone = _names([*waived, *([glass["by"]] if glass else [])])
    found = {
        "approvers": approvers,
        "waived_by": waived,
        "broken_by": glass["by"] if glass else None,
        "authors": authors,
        "requester_approved": _among(approvers, requester),
        "author_approved": _among(approvers, authors),
        "own_waiver": _among(alone, [*requester, *authors]),
        "unapproved": row["entered"] and not approvers,
        "undecided": row["entered"] and row["decision_id"] is None,
        "unverified": row["decision_id"] is not None and decision is None,
        "unknown_author": row["entered"] and made is None,
        "break_glass": glass is not None,
    }
    violation = row["entered"] and any(found[name] for name in ("requester_approved", "author_approved", "own_waiver"))
    return {
        **row,
        **found,
        "violation": violation,
        "registered_index": made["index"] if made else None,
        "decided_index": decision["index"] if decision else None,
        "finding": "violation" if violation else _finding(row, found),
    }


def _finding(row: Document, found: Document) -> str:
    if not row["entered"]:
        return "refused"
    return next((name for name in DOUBTS if found[name.replace("-", "_")]), "good")


def _names(told: Iterable[str | None]) -> list[str]:
    return sorted({name for name in told if name})


def _among(names: Iterable[str], others: Iterable[str]) -> list[str]:
    folded = {other.lower() for other in others}
    return [name for name in names if name.lower() in folded]
