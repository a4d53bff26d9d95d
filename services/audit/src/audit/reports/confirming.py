"""Votes, waivers and emergencies are not signed one by one; the decision that counts them is. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

Document = Mapping[str, Any]


def signed_index(said: Document, decisions: Iterable[Document]) -> int | None:
    """The first entry among `decisions`, verified facts of one request, that has signed this vote, waiver or emergency.

    `said` is the data of a fact. The groups of a person may be others by the time of the decision.
    """
    for name, part in (("vote", "votes"), ("waiver", "waived"), ("glass", "break_glass")):
        if name in said:
            wanted = _content(said[name])
            for decision in decisions:
                told = decision["data"]["decision"].get(part) or ()
                if wanted in [_content(one) for one in ([told] if isinstance(told, Mapping) else told)]:
                    return int(decision["index"])
    return None


def _content(said: Document) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != "groups"}
