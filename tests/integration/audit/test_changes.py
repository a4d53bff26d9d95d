"""What is different between two instants, what was deleted then, and pages in a signed tree."""

from base64 import b64decode
from typing import Any
from urllib.parse import quote

import pytest

from audit import merkle, queries
from audit.note import open_note
from contracts.lifecycle import Stage
from contracts.registry import ModelDeleted, ModelRestored
from hallmark.results import Change

from .conftest import Harness, event, hours, record, registered, story
from .test_aliases import alias, removed
from .test_pages import walk


def instants(since: float, until: float, more: str = "") -> str:
    return f"/v1/changes?since={quote(hours(since).isoformat())}&until={quote(hours(until).isoformat())}{more}"


def told(items: list[dict[str, Any]]) -> list[Any]:
    def place(side: dict[str, Any] | None) -> Any:
        return side and (side["target"], side["version"])

    return [(i["version"] or f"@{i['alias']}", place(i["before"]), place(i["after"]), i["index"]) for i in items]


async def test_what_is_different_between_two_instants(audit: Harness) -> None:
    moves = [alias(1), alias(2, 1), removed(2)]
    pointed = [
        event(message, n, at=hours(at)) for n, (message, at) in enumerate(zip(moves, (3, 4.5, 7), strict=True), 10)
    ]
    await audit.ledger.append([record(e) for e in [*story(), *pointed]])
    items, _ = await walk(audit, instants(3.2, 5))
    assert [(Change.model_validate(item).index, item["index"]) for item in items] == [(n, n) for n in (5, 6, 10)]
    assert told(items) == [
        (1, ("Production", 1), ("Archived", 1), 5),
        (2, ("Staging", 2), ("Production", 2), 6),
        ("@champion", ("@champion", 1), ("@champion", 2), 10),
    ]
    assert (items[1]["after"]["approved_by"][0]["name"], items[1]["after"]["policy"]) == ("ben", "prod@1")
    # v1 came back by 6 h: it is where it was, by another entry; the alias is gone by 7 h.
    items, _ = await walk(audit, instants(3.2, 8))
    assert told(items) == [
        (1, ("Production", 1), ("Production", 1), 8),
        (2, ("Staging", 2), ("Archived", 2), 7),
        ("@champion", ("@champion", 1), None, 11),
    ]
    assert told((await audit.get(instants(0, 1, "&target=staging")))["items"]) == [
        (1, ("Development", 1), ("Staging", 1), 1)
    ]
    assert told((await audit.get(instants(3.2, 5, "&target=@champion")))["items"]) == [
        ("@champion", ("@champion", 1), ("@champion", 2), 10)
    ]
    # As it was known before the entries came.
    assert told((await audit.get(instants(3.2, 5, "&known_size=5")))["items"]) == []
    assert (await audit.get(instants(3, 3)))["items"] == []
    for bad in ("/v1/changes", instants(5, 3), "/v1/changes?since=2026-11-20T00:00:00Z&target=%00"):
        assert await audit.status(bad, "auditors") == 422
    assert await audit.status(instants(1, 2), "strangers") == 403


async def test_a_deleted_model_is_told_as_deleted_for_as_long_as_it_was(audit: Harness) -> None:
    of = {"workspace": "default", "model": "fraud", "reason": "no longer used"}
    ends = [event(ModelDeleted(**of), 10, at=hours(8)), event(ModelRestored(**of), 11, at=hours(9))]
    await audit.ledger.append([record(e) for e in [*story(), *ends]])

    async def ask(path: str, at: float, more: str = "") -> Any:
        return await audit.get(f"{path}at={quote(hours(at).isoformat())}{more}")

    said = {"at": "2026-11-20T20:00:00Z", "by": "ana", "reason": "no longer used", "index": 9}
    for path in (
        "/v1/models/fraud/production?",
        "/v1/models/fraud/aliases/x?",
        "/v1/explain?model=fraud&proofs=false&",
    ):
        found = [(await ask(path, at))["deleted"] for at in (7, 8, 8.5, 9)]
        assert found == [None, said, said, None]
        assert (await ask(path, 8.5, "&known_size=9"))["deleted"] is None
    answer = await ask("/v1/explain?model=fraud&", 8.5)
    assert (answer["version"], [each["index"] for each in answer["deletions"]]) == (1, [9, 10])
    assert {9, 10} <= {each["index"] for each in answer["proofs"]["items"]}


async def test_what_was_in_production_is_proven(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in [*story(), event(alias(1), 10, at=hours(7))]])
    at = quote(hours(3).isoformat())
    answer = await audit.get(f"/v1/models/fraud/production?at={at}&proofs=true")
    found = answer["proofs"]
    head = open_note(found["checkpoint"], (await audit.get("/keys")).splitlines()[0])
    assert [each["index"] for each in found["items"]] == [answer["index"], answer["closed_by"]] == [2, 5]
    for each in found["items"]:
        path = [b64decode(node) for node in each["proof"]]
        leaf = bytes.fromhex(each["leaf_hash"])
        assert merkle.verify_inclusion(leaf, each["index"], head.size, path, head.root)
    pointed = await audit.get("/v1/models/fraud/aliases/champion?proofs=true")
    assert [each["index"] for each in pointed["proofs"]["items"]] == [9]
    assert (await audit.get("/v1/models/fraud/production"))["proofs"] is None
    assert (await audit.get("/v1/models/none/production?proofs=true"))["proofs"] is None


async def test_many_in_a_stage_are_cut_and_it_is_said(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST", 2)
    await audit.ledger.append([record(event(registered(n), n, at=hours(n))) for n in (1, 2, 3)])
    answer = await audit.get("/v1/models/fraud/production?stage=Development")
    assert ([o["version"] for o in answer["occupants"]], answer["truncated"]) == ([3, 2], True)
    found = await audit.get(f"/v1/explain?model=fraud&target={Stage.DEVELOPMENT}&version=1&proofs=false")
    assert (found["stay"]["version"], found["others"], found["truncated"]) == (1, [2], True)


async def test_pages_of_a_signed_tree(audit: Harness) -> None:
    assert (await audit.get("/v1/timeline?signed=true"))["size"] == 0
    await audit.ledger.append([record(e) for e in story()[:4]])
    await audit.get("/v1/log/inclusion?index=0")  # signs
    await audit.ledger.append([record(e) for e in story()[4:]])
    page = await audit.get("/v1/timeline?signed=true&limit=3")
    assert (page["size"], [i["index"] for i in page["items"]]) == (4, [0, 1, 2])
    rest = await audit.get(f"/v1/timeline?limit=3&after={page['next']}")
    assert (rest["size"], [i["index"] for i in rest["items"]], rest["next"]) == (4, [3], None)
    assert (await audit.get("/v1/timeline"))["size"] == 9
