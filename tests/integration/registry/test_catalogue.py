"""Models, what is appended to versions, aliases, lifecycles: over HTTP, with everything real behind it."""

import asyncio
from typing import Any

import pytest
from tests.integration.registry.test_registry import decide, promote, signed

from contracts.registry import AliasChanged, ModelRenamed, VersionEvaluated

from .conftest import Harness

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]


async def put(registry: Harness, path: str, body: dict[str, Any], *, by: str = "ana") -> dict[str, Any]:
    clients = {"ana": registry.ana, "olga": registry.olga, "ada": registry.client("ada", "admins")}
    response = await clients[by].put(path, json=body)
    assert response.is_success, response.text
    document: dict[str, Any] = response.json()
    return document


def code_of(response: Any) -> str:
    return str(response.json()["type"]).removeprefix("urn:hallmark:problem:")


async def test_a_model_is_changed_renamed_deleted_and_restored(registry: Harness) -> None:
    await registry.register("fraud")
    changed = await registry.ana.patch(
        "/v1/models/fraud", json={"owner": "payments", "tags": {"set": {"tier": "1", "draft": "yes"}}}
    )
    assert (changed.json()["owner"], changed.json()["tags"]) == ("payments", {"tier": "1", "draft": "yes"})
    changed = await registry.ana.patch("/v1/models/fraud", json={"tags": {"remove": ["draft"]}})
    assert (changed.json()["owner"], changed.json()["tags"]) == ("payments", {"tier": "1"})
    assert code_of(await registry.ana.patch("/v1/models/fraud", json={})) == "nothing-to-change"

    assert code_of(await registry.ana.post("/v1/models/fraud/rename", json={"name": "card-fraud"})) == "forbidden"
    renamed = await registry.olga.post("/v1/models/fraud/rename", json={"name": "card-fraud"})
    assert (renamed.json()["name"], renamed.json()["model"]) == ("card-fraud", "fraud")
    for name in ("fraud", "card-fraud"):
        assert (await registry.ana.get(f"/v1/models/{name}")).json()["name"] == "card-fraud"
    # Both names lead to the same stream, and nobody else can take either.
    assert (await registry.register("card-fraud", b"second"))["version"] == 2
    for name in ("fraud", "card-fraud"):
        assert code_of(await registry.ana.post("/v1/models", json={"name": name})) == "model-exists"
    event = await registry.event(lambda e: e.type == ModelRenamed.TYPE)
    assert event.key == registry.stream("fraud")

    gone = await registry.olga.post("/v1/models/card-fraud/delete", json={"reason": "replaced"})
    assert gone.json()["deleted_at"] is not None
    assert [m["model"] for m in (await registry.ana.get("/v1/models")).json()["items"]] == []
    listed = await registry.ana.get("/v1/models", params={"deleted": True})
    assert [m["model"] for m in listed.json()["items"]] == ["fraud"]
    body = {"artifact": await registry.upload(b"third")}
    refused = await registry.ana.post("/v1/models/fraud/versions", json=body)
    assert (refused.status_code, code_of(refused)) == (410, "model-deleted")
    assert code_of(await registry.ana.post("/v1/models", json={"name": "fraud"})) == "model-exists"
    back = await registry.olga.post("/v1/models/fraud/restore", json={"reason": "mistake"})
    assert back.json()["deleted_at"] is None
    assert (await registry.ana.get("/v1/models/fraud/versions/2")).json()["status"] == "ready"


async def test_two_renames_to_one_name_and_a_registration_of_it(registry: Harness) -> None:
    """Whoever comes first has the name; the others are told, and nothing breaks."""
    for n in range(4):
        await registry.ana.post("/v1/models", json={"name": f"m{n}"})
    wishes = [registry.olga.post(f"/v1/models/m{n}/rename", json={"name": "best"}) for n in range(4)]
    answers = await asyncio.gather(*wishes, registry.ana.post("/v1/models", json={"name": "best"}))
    assert sorted(a.status_code for a in answers)[1:] == [409] * 4, [a.text for a in answers]
    assert (await registry.ana.get("/v1/models/best")).json()["name"] == "best"


async def test_two_models_that_want_each_others_name(registry: Harness) -> None:
    for name in ("left", "right"):
        await registry.ana.post("/v1/models", json={"name": name})
    answers = await asyncio.gather(
        *(
            registry.olga.post(f"/v1/models/{a}/rename", json={"name": b})
            for a, b in (("left", "right"), ("right", "left")) * 5
        )
    )
    assert {a.status_code for a in answers} == {409}


async def test_64_registrations_at_once(registry: Harness) -> None:
    artifact = await registry.upload(b"many")
    answers = await asyncio.gather(
        *(
            registry.ana.post("/v1/models/many/versions", json={"artifact": artifact, "metrics": {"n": float(n)}})
            for n in range(64)
        )
    )
    assert sorted(a.json()["version"] for a in answers) == list(range(1, 65))
    assert (await registry.verified("many", 64))["status"] == "ready"


async def test_what_is_learnt_later_is_appended(registry: Harness) -> None:
    await registry.register("fraud", metrics={"auc": 0.9})
    version = "/v1/models/fraud/versions/1"
    evaluation = {"dataset": {"name": "may"}, "metrics": {"auc": 0.8}, "evaluated_at": "2026-05-31T00:00:00Z"}
    made = await registry.ana.post(f"{version}/evaluations", json=evaluation)
    assert made.status_code == 201, made.text
    assert made.json()["content"]["metrics"] == {"auc": 0.9}, "law 4"
    await registry.ana.post(f"{version}/notes", json={"text": "checked"})
    tagged = await registry.ana.patch(f"{version}/tags", json={"set": {"reviewed": "yes"}})
    assert tagged.json()["tags"] == {"reviewed": "yes"}
    found = (await registry.ana.get(f"{version}/remarks")).json()["items"]
    assert [(r["kind"], r["by"]) for r in found] == [("evaluation", "ana"), ("note", "ana")]
    only = (await registry.ana.get(f"{version}/remarks", params={"kind": "note"})).json()["items"]
    assert [r["data"]["text"] for r in only] == ["checked"]
    await registry.event(lambda e: e.type == VersionEvaluated.TYPE)


async def test_an_unsafe_scan_quarantines(registry: Harness) -> None:
    await registry.register("fraud")
    version = "/v1/models/fraud/versions/1"
    finding = {"severity": "unsafe", "code": "cve", "detail": "a library with a hole"}
    await registry.ana.post(f"{version}/scans", json={"scanner": "grype", "findings": [finding]})
    assert (await registry.ana.get(version)).json()["status"] == "quarantined"
    archived = await registry.ana.post(f"{version}/transitions", json={"to_stage": "Archived", "reason": "x"})
    assert code_of(archived) == "version-quarantined"
    assert code_of(await registry.ana.put("/v1/models/fraud/aliases/best", json={"version": 1})) == (
        "version-quarantined"
    )
    # A gated stage may be asked for: only a decision with a signed waiver lets it in.
    asked = await registry.request("fraud", 1, "Staging")
    await decide(registry, signed(registry, asked))
    closed = await registry.closed(asked["transition_id"])
    assert (closed["status"], closed["code"]) == ("refused", "version-quarantined")
    asked = await registry.request("fraud", 1, "Staging")
    await decide(registry, signed(registry, asked, waivers=("unsafe-artifact",)))
    assert (await registry.closed(asked["transition_id"]))["status"] == "applied"


async def test_a_dangerous_pickle_is_quarantined(registry: Harness) -> None:
    pickled = b"cos\nsystem\n(S'echo owned'\ntR."
    artifact = {**await registry.upload(pickled), "filename": "model.pkl"}
    made = await registry.ana.post("/v1/models/fraud/versions", json={"artifact": artifact})
    assert made.status_code == 201, made.text
    found = await registry.verified("fraud", 1)
    assert found["status"] == "quarantined"
    assert found["inspection"]["format"] == "pickle"
    assert any(f["severity"] == "unsafe" for f in found["inspection"]["findings"])


async def test_aliases_move_by_compare_and_set(registry: Harness) -> None:
    for n in (1, 2):
        await registry.register("fraud", f"model {n}".encode())
    alias = "/v1/models/fraud/aliases/champion"
    assert (await put(registry, alias, {"version": 1, "expected": 0}))["version"] == 1
    assert code_of(await registry.ana.put(alias, json={"version": 2, "expected": 0})) == "alias-moved"
    answers = await asyncio.gather(
        *(registry.ana.put(alias, json={"version": 2, "expected": 1, "reason": f"{n}"}) for n in range(8))
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 7
    again = await put(registry, alias, {"version": 2})
    assert again["version"] == 2
    assert (await registry.ana.get("/v1/models/fraud/resolve", params={"alias": "champion"})).json()["version"] == 2
    assert (await registry.ana.get("/v1/models/fraud/versions/2")).json()["aliases"] == ["champion"]
    removed = await registry.ana.delete(alias, params={"reason": "over"})
    assert removed.json()["aliases"] == {}
    history = (await registry.ana.get(f"{alias}/history")).json()["items"]
    assert [(h["previous"], h["version"]) for h in history] == [(None, 1), (1, 2), (2, None)]
    for name in ("latest", "v3"):
        refused = await registry.ana.put(f"/v1/models/fraud/aliases/{name}", json={"version": 1})
        assert code_of(refused) == "reserved-alias"


async def test_a_protected_alias_waits_for_a_signed_decision(registry: Harness) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", {"protected_aliases": ["champion"]}, by="ada")
    for n in (1, 2):
        await registry.register("fraud", f"model {n}".encode())
    alias = "/v1/models/fraud/aliases/champion"
    asked = await registry.ana.put(alias, json={"version": 1, "reason": "best"})
    assert (asked.status_code, asked.json()["to_stage"], asked.json()["kind"]) == (202, "@champion", "alias")
    assert (await registry.ana.get(alias)).status_code == 404
    assert asked.json()["expected"] is None
    assert code_of(await registry.ana.put(alias, json={"version": 1})) == "transition-open"
    await decide(registry, signed(registry, asked.json()))
    assert (await registry.closed(asked.json()["transition_id"]))["status"] == "applied"
    assert (await registry.ana.get(alias)).json()["version"] == 1
    event = await registry.event(lambda e: e.type == AliasChanged.TYPE)
    changed = event.payload(AliasChanged)
    assert (changed.alias, changed.previous, bool(changed.decision)) == ("champion", None, True)
    assert (await registry.ana.put("/v1/models/fraud/aliases/Champion", json={"version": 2})).status_code == 202
    # Another alias is free; taking the protected one away is an operator's act.
    assert (await put(registry, "/v1/models/fraud/aliases/challenger", {"version": 2}))["version"] == 2
    assert code_of(await registry.ana.delete(alias, params={"reason": "x"})) == "forbidden"
    assert (await registry.olga.delete(alias, params={"reason": "x"})).is_success


CANARY = {
    "stages": [
        {"name": "Lab"},
        {"name": "Canary", "gated": True, "holds": 2},
        {"name": "Live", "gated": True, "holds": 1},
        {"name": "QA", "holds": 1},
        {"name": "Attic"},
    ],
    "moves": [
        {"origin": "Lab", "to": "QA"},
        {"origin": "Lab", "to": "Canary"},
        {"origin": "Canary", "to": "Live"},
        {"origin": "Live", "to": "Attic"},
    ],
    "initial": "Lab",
    "archive": "Attic",
}


async def test_a_workspace_with_stages_of_its_own(registry: Harness) -> None:
    rules = f"/v1/workspaces/{registry.workspace}"
    assert code_of(await registry.ana.put(rules, json={"lifecycle": CANARY})) == "forbidden"
    shown = await put(registry, rules, {"lifecycle": CANARY}, by="ada")
    assert shown["lifecycle"]["initial"] == "Lab"
    for n in (1, 2, 3):
        assert (await registry.register("fraud", f"model {n}".encode()))["stage"] == "Lab"
        await promote(registry, "fraud", n, "canary")
    stages = {n: (await registry.ana.get(f"/v1/models/fraud/versions/{n}")).json()["stage"] for n in (1, 2, 3)}
    assert stages == {1: "Attic", 2: "Canary", 3: "Canary"}, "it holds two; the longest-standing leaves"
    await promote(registry, "fraud", 2, "Live")
    assert (await registry.ana.get("/v1/models/fraud/resolve", params={"stage": "live"})).json()["version"] == 2
    path = "/v1/models/fraud/versions/3/transitions"
    assert code_of(await registry.ana.post(path, json={"to_stage": "Production", "reason": "x"})) == "unknown-stage"
    # An ungated stage that holds one makes room too.
    for n in (4, 5):
        await registry.register("fraud", f"model {n}".encode())
        moved = await registry.request("fraud", n, "QA")
        assert moved["status"] == "applied"
    assert (await registry.ana.get("/v1/models/fraud/versions/4")).json()["stage"] == "Attic"
    # A stage with versions in it cannot go away.
    refused = await registry.client("ada", "admins").put(rules, json={})
    assert (refused.status_code, code_of(refused)) == (409, "stage-in-use")


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({"lifecycle": {**CANARY, "initial": "Nowhere"}}, "invalid-request"),
        ({"lifecycle": {**CANARY, "archive": "Live"}}, "invalid-request"),
        ({"lifecycle": {**CANARY, "stages": [{"name": "Lab"}, {"name": "lab"}]}}, "invalid-request"),
        ({"naming": "["}, "bad-naming-rule"),
        ({"naming": "(?=a)b"}, "bad-naming-rule"),
        ({"colour": "red"}, "invalid-request"),
    ],
)
async def test_bad_rules_are_refused(registry: Harness, rules: dict[str, Any], code: str) -> None:
    response = await registry.client("ada", "admins").put(f"/v1/workspaces/{registry.workspace}", json=rules)
    assert (response.status_code, code_of(response)) == (422, code)


async def test_names_follow_the_rule_of_the_workspace(registry: Harness) -> None:
    rules = {"naming": "[a-z]+-[a-z]+", "naming_message": "team-purpose, such as risk-fraud"}
    await put(registry, f"/v1/workspaces/{registry.workspace}", rules, by="ada")
    refused = await registry.ana.post("/v1/models", json={"name": "fraud"})
    assert (refused.status_code, code_of(refused)) == (422, "bad-name")
    assert "risk-fraud" in refused.json()["detail"]
    body = {"artifact": await registry.upload(b"m")}
    assert code_of(await registry.ana.post("/v1/models/fraud/versions", json=body)) == "bad-name"
    assert (await registry.ana.post("/v1/models", json={"name": "risk-fraud"})).status_code == 201
    refused = await registry.olga.post("/v1/models/risk-fraud/rename", json={"name": "fraud"})
    assert code_of(refused) == "bad-name"


async def test_an_open_transition_is_taken_back(registry: Harness) -> None:
    await registry.register("fraud")
    asked = await registry.request("fraud", 1, "Staging")
    path = f"/v1/transitions/{asked['transition_id']}/cancel"
    bob = registry.client("bob", "ml-engineers")
    assert code_of(await bob.post(path, json={"reason": "mine?"})) == "forbidden"
    cancelled = (await registry.ana.post(path, json={"reason": "leak"})).json()
    assert (cancelled["status"], cancelled["code"]) == ("cancelled", "cancelled")
    assert code_of(await registry.ana.post(path, json={"reason": "again"})) == "transition-closed"
    await decide(registry, signed(registry, asked))  # too late
    again = await registry.request("fraud", 1, "Staging")
    assert again["transition_id"] != asked["transition_id"]
    listed = await registry.ana.get("/v1/models/fraud/transitions", params={"status": "cancelled"})
    assert [t["transition_id"] for t in listed.json()["items"]] == [asked["transition_id"]]


async def test_a_digest_of_another_workspace_opens_nothing(registry: Harness) -> None:
    """Reader roles may be given per model: a contributor of one must not get at the bytes of another."""
    secret = await registry.register("secret", b"weights" + registry.workspace.encode())
    artifact = secret["content"]["artifact"]
    narrow = registry.client("mallory", "churn-only")
    body = {"files": [{"digest": artifact["digest"], "size": artifact["size"]}]}
    [offer] = (await narrow.post("/v1/artifacts", json=body)).json()["files"]
    assert offer["state"] == "single"
    refused = await narrow.post("/v1/models/churn/versions", json={"artifact": artifact})
    assert (refused.status_code, code_of(refused)) == (422, "artifact-missing")


async def test_what_a_grant_on_some_models_allows(registry: Harness) -> None:
    for name in ("churn", "secret"):
        await registry.register(name, f"{name} {registry.workspace}".encode())
    narrow = registry.client("nora", "churn-only")
    assert [m["model"] for m in (await narrow.get("/v1/models")).json()["items"]] == ["churn"]
    assert {v["model"] for v in (await narrow.get("/v1/search/versions")).json()["items"]} == {"churn"}
    assert (await narrow.get("/v1/models/secret")).status_code == 403
    assert (await narrow.get("/v1/stale", params={"unused_days": 1})).status_code == 200


async def test_nobody_takes_a_name_that_is_not_theirs(registry: Harness) -> None:
    await registry.register("x-model")
    narrow = registry.client("xenia", "x-operators")
    refused = await narrow.post("/v1/models/x-model/rename", json={"name": "fraud"})
    assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    assert (await narrow.post("/v1/models/x-model/rename", json={"name": "x-other"})).is_success


async def test_a_contributor_cannot_take_a_rollback_away(registry: Harness) -> None:
    for n in (1, 2):
        await registry.register("churn", f"{n} {registry.workspace}".encode())
        await promote(registry, "churn", n, "Staging")
        await promote(registry, "churn", n, "Production")
    path = "/v1/models/churn/versions/1"
    back = await registry.ana.post(f"{path}/transitions", json={"to_stage": "Development", "reason": "x"})
    assert (back.status_code, code_of(back)) == (403, "forbidden")
    finding = {"severity": "unsafe", "code": "x", "detail": "x"}
    scan = await registry.ana.post(f"{path}/scans", json={"scanner": "s", "findings": [finding]})
    assert (scan.status_code, code_of(scan)) == (403, "forbidden")
    rolled = await registry.olga.post("/v1/models/churn/rollback", json={"reason": "errors"})
    assert (rolled.status_code, rolled.json()["version"]) == (202, 1)


async def test_a_model_that_others_rely_on_is_not_deleted(registry: Harness) -> None:
    await registry.register("churn")
    await promote(registry, "churn", 1, "Staging")
    refused = await registry.olga.post("/v1/models/churn/delete", json={"reason": "x"})
    assert (refused.status_code, code_of(refused)) == (409, "model-in-use")


@pytest.mark.parametrize("name", ["\u200b", "a\u202eb", "\u00a0", "e\u0301", "a\u2028b"])
async def test_names_that_are_not_what_they_look_like(registry: Harness, name: str) -> None:
    refused = await registry.ana.post("/v1/models", json={"name": name})
    assert (refused.status_code, code_of(refused)) == (422, "invalid-request")


@pytest.mark.parametrize("source", ["s3://refs/../hallmark/x", "s3://refs/a/../../x", "s3://refs/./x"])
async def test_an_address_that_climbs_is_refused(registry: Harness, source: str) -> None:
    artifact = {"digest": "sha256:" + "a" * 64, "size": 1, "filename": "m.onnx", "source": source}
    refused = await registry.ana.post("/v1/models/churn/versions", json={"artifact": artifact})
    assert (refused.status_code, code_of(refused)) == (422, "invalid-request")
