"""Which model made this decision? By model and instant, or by the pin that a server logged."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from audit import app as audit_app
from audit import merkle
from audit.note import open_note
from contracts.approval import Choice, PolicyPublished, PolicyRef, VoteCast
from contracts.envelope import Envelope
from contracts.lifecycle import Stage
from contracts.model import Dataset, Evaluation, Lineage
from contracts.payload import Message
from contracts.registry import AliasChanged, ModelRenamed, StageRequested, Transition, VersionEvaluated
from contracts.topics import APPROVAL_EVENTS
from kit.keys import ensure_key, load_key
from registry.serving.pins import PinSigner

from .conftest import NOON, Harness, changed, digest, event, hours, record, registered
from .test_reports import decided_by, said, vote

POLICY = PolicyRef(name="prod", revision=3, digest=digest(77))


async def told(audit: Harness) -> None:
    """v1, with metrics and data, evaluated twice, asked for, voted on, decided and in Production from 4 h to 8 h."""
    made = registered(1)
    lineage = Lineage(git_commit="c0ffee", datasets=(Dataset(name="claims-2026", digest=digest(5)),))
    content = made.content.model_copy(update={"metrics": {"auc": 0.93}, "parameters": {"depth": 7}, "lineage": lineage})
    evaluated = [
        VersionEvaluated(
            workspace="default",
            model="fraud",
            version=1,
            evaluation=Evaluation(dataset=Dataset(name=name), metrics={"auc": 0.9}, evaluated_at=NOON),
        )
        for name in ("holdout", "fairness")
    ]
    change = changed(1, Stage.DEVELOPMENT, Stage.PRODUCTION).model_copy(update={"decision_id": "d-1"})
    asked = {name: getattr(change, name) for name in (*Transition.model_fields, "requested_by", "reason")}
    decision = decided_by(change, vote("ben"))
    decision = decision.model_copy(update={"decision": decision.decision.model_copy(update={"policies": (POLICY,)})})
    published = PolicyPublished(policy=POLICY, document="kind: PromotionPolicy", published_by="root")
    registry: list[tuple[float, Message]] = [
        (1, made.model_copy(update={"content": content})),
        (2, evaluated[0]),
        (2.5, evaluated[1]),
        (3, StageRequested(**asked, expires_at=hours(72))),
        (4, change),
        (7, registered(2)),
        (8, changed(1, Stage.PRODUCTION, Stage.ARCHIVED)),
    ]
    cast = VoteCast(request_id=change.transition_id, vote=vote("ben", Choice.APPROVE))
    policy = event(published, 1, key="policy:prod", subject="policy:prod", source="hallmark/approval")
    envelopes: list[Envelope] = [event(m, n, at=hours(at)) for n, (at, m) in enumerate(registry, 1)]
    await audit.ledger.append([record(policy, topic=APPROVAL_EVENTS.name)])
    await audit.ledger.append([record(e) for e in envelopes])
    await audit.ledger.append([said(cast, 1), said(decision, 2)])


def names(answer: Any) -> dict[str, list[int]]:
    return {name: [each["index"] for each in value] for name, value in answer.items() if _is_facts(value)}


def _is_facts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


async def test_the_version_and_all_that_the_log_says_of_it(audit: Harness) -> None:
    await told(audit)
    answer = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}")
    assert (answer["version"], answer["target"], answer["stay"]["index"], answer["stay"]["closed_by"]) == (
        1,
        "Production",
        5,
        7,
    )
    assert names(answer) == {
        "registration": [1],
        "evaluations": [2, 3],
        "request": [4],
        "votes": [8],
        "decision": [9],
        "policies": [0],
    }
    content = answer["registration"][0]["data"]["content"]
    assert (content["metrics"], content["parameters"]) == ({"auc": 0.93}, {"depth": 7})
    assert content["lineage"]["datasets"][0]["name"] == "claims-2026"
    assert [e["data"]["evaluation"]["dataset"]["name"] for e in answer["evaluations"]] == ["holdout", "fairness"]
    assert answer["decision"][0]["data"]["decision"]["verdict"] == "approved"
    assert answer["votes"][0]["data"]["vote"]["meaning"] == "approve by risk"
    assert answer["policies"][0]["data"]["policy"]["revision"] == 3


async def test_every_fact_is_proven(audit: Harness) -> None:
    await told(audit)
    answer = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}")
    proofs = answer["proofs"]
    head = open_note(proofs["checkpoint"], (await audit.get("/keys")).splitlines()[0])
    assert head.size == proofs["size"] == 10
    leaves = {row["index"]: row["leaf"] for row in await audit.entries()}
    assert [p["index"] for p in proofs["items"]] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    for proof in proofs["items"]:
        leaf = merkle.leaf_hash(leaves[proof["index"]])
        assert leaf.hex() == proof["leaf_hash"]
        path = [b64decode(node) for node in proof["proof"]]
        assert merkle.verify_inclusion(leaf, proof["index"], head.size, path, head.root)
    without = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}&proofs=false")
    assert without["proofs"] is None


async def test_nobody_was_there(audit: Harness) -> None:
    await told(audit)
    for at in (3.9, 9):
        answer = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(at).isoformat())}")
        assert (answer["version"], answer["stay"], answer["registration"], answer["proofs"]) == (None, None, [], None)


async def test_as_it_was_known(audit: Harness) -> None:
    await told(audit)
    then = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}&known_size=7")
    assert names(then) == {"registration": [1], "evaluations": [2, 3], "request": [4]}
    assert (then["version"], then["stay"]["closed_by"]) == (1, None)


async def test_by_an_alias_and_another_name(audit: Harness) -> None:
    pointing = AliasChanged(
        workspace="default", model="fraud", alias="champion", version=2, digest=digest(2), artifact_digest=digest(2),
        requested_by="ana", reason="won",
    )  # fmt: skip
    renamed = ModelRenamed(workspace="default", model="fraud", former="fraud", name="scam")
    messages = [registered(1), registered(2), pointing, renamed]
    await audit.ledger.append([record(event(m, n, at=hours(n))) for n, m in enumerate(messages, 1)])
    answer = await audit.get("/v1/explain?model=scam&target=@champion")
    assert (answer["model"], answer["target"], answer["version"]) == ("fraud", "@champion", 2)
    assert names(answer) == {"registration": [1]}
    several = await audit.get("/v1/explain?model=scam&target=Development")
    assert (several["version"], several["others"]) == (2, [1])
    assert (await audit.get("/v1/explain?model=scam&target=Development&version=1"))["version"] == 1


@pytest.fixture
def signer(audit: Harness, tmp_path: Path) -> PinSigner:
    ensure_key(tmp_path, "serving")
    audit.settings = audit.settings.model_copy(update={"serving_jwks": str(tmp_path / "serving.jwks.json")})
    audit.made = audit_app.build(audit.settings)
    return PinSigner(load_key(tmp_path / "serving.jwk"))


def pin_claims(**other: Any) -> dict[str, Any]:
    return {
        "workspace": "default",
        "model": "fraud",
        "target": "Production",
        "version": 1,
        "digest": digest(1),
        "artifact_digest": digest(1),
        "status": "ready",
        "sequence": 5,
        "iat": int(hours(5).timestamp()),
        **other,
    }


async def test_by_a_pin(audit: Harness, signer: PinSigner) -> None:
    await told(audit)
    answer = await audit.get(f"/v1/explain?pin={signer.sign(pin_claims())}")
    assert (answer["version"], answer["pin"]["agrees"], answer["pin"]["issued_at"]) == (1, True, "2026-11-20T17:00:00Z")
    assert names(answer)["decision"] == [9]
    # In the very second of the change.
    edge = await audit.get(f"/v1/explain?pin={signer.sign(pin_claims(iat=int(hours(4).timestamp())))}")
    assert edge["pin"]["agrees"] is True


@pytest.mark.parametrize(
    "other",
    [
        {"iat": int(hours(3).timestamp())},
        {"iat": int(hours(9).timestamp())},
        {"version": 2, "digest": digest(2), "artifact_digest": digest(2)},
        {"digest": digest(9)},
        {"artifact_digest": digest(9)},
        {"target": "Staging"},
    ],
)
async def test_a_pin_that_the_log_contradicts_says_so(audit: Harness, signer: PinSigner, other: Any) -> None:
    await told(audit)
    answer = await audit.get(f"/v1/explain?pin={signer.sign(pin_claims(**other))}")
    assert answer["pin"]["agrees"] is False
    assert answer["version"] == other.get("version", 1)
    assert names(answer)["registration"]


async def test_pins_that_are_none(audit: Harness, signer: PinSigner, tmp_path: Path) -> None:
    good = signer.sign(pin_claims())
    head, body, signature = good.split(".")
    ensure_key(tmp_path / "other", "serving")
    strange = PinSigner(load_key(tmp_path / "other" / "serving.jwk")).sign(pin_claims())
    bad = ["x", "a.b.c", f"{head}.{body}.{signature[:-4]}AAAA", strange, signer.sign({"version": 1})]
    bad += [signer.sign(pin_claims(iat=10**18))]
    for pin in bad:
        assert await audit.status(f"/v1/explain?pin={pin}", "auditors") == 422
    assert await audit.status(f"/v1/explain?pin={good}&model=fraud", "auditors") == 422
    assert await audit.status("/v1/explain", "auditors") == 422
    assert await audit.status(f"/v1/explain?pin={good}", "strangers") == 403
    assert await audit.status(f"/v1/explain?pin={good}", "ml-engineers") == 200


async def test_without_keys_no_pin_is_believed(audit: Harness, tmp_path: Path) -> None:
    ensure_key(tmp_path, "serving")
    pin = PinSigner(load_key(tmp_path / "serving.jwk")).sign(pin_claims())
    assert await audit.status(f"/v1/explain?pin={pin}", "auditors") == 501


async def test_what_is_too_much_to_tell_is_left_out_and_said_to_be(
    audit: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(audit)
    whole = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}")
    (one, _) = whole["evaluations"]
    size = len(json.dumps(one["data"]))
    monkeypatch.setattr("audit.explain.MOST_BYTES", size)
    answer = await audit.get(f"/v1/explain?model=fraud&at={quote(hours(5).isoformat())}")
    assert (answer["evaluations"], answer["truncated"], whole["truncated"]) == ([one], True, False)
