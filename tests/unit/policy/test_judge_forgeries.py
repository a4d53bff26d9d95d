"""Forged, truncated, exchanged and re-ordered records: what is wrong has a name."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey
from tests.unit.policy.conftest import (
    AT,
    REVIEW,
    asks,
    document,
    in_force,
    inputs,
    person,
)
from tests.unit.policy.records import (
    HEADER,
    KEY,
    PLAIN,
    STRANGER,
    TWO,
    Record,
    b64,
    changed,
    failed,
    good,
    judged,
    keys,
    record,
    resigned,
    signed,
    text,
    votes,
)

from contracts.approval import DECISION_TYPE, REVOCATION_TYPE
from contracts.canonical import canonical_json
from policy.document import digest_of, parse
from policy.judge import judge

# -- the signature ------------------------------------------------------------------------------------------------


def spoilt(given: Record, change: Callable[[str], str]) -> Record:
    return {**given, "jws": change(given["jws"])}


def flipped(jws: str) -> str:
    head, payload, signature = jws.split(".")
    return f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def relaxed(jws: str) -> str:
    """The same bytes in another spelling: the last character of a signature holds bits that mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return jws[:-1] + alphabet[alphabet.index(jws[-1]) + 1]


def by_secret(payload: Any) -> str:
    """For whoever takes the public key for a shared secret."""
    secret = OctKey.import_key(json.dumps(KEY.as_dict(private=False)))
    return jws.serialize_compact({**HEADER, "alg": "HS256"}, canonical_json(payload), secret, algorithms=["HS256"])


FORGERIES: dict[str, tuple[Callable[[Record], Record], str]] = {
    "another signature": (lambda r: spoilt(r, flipped), "signature"),
    "an unknown key": (lambda r: resigned(r, {**HEADER, "kid": STRANGER.kid}, STRANGER), "signature"),
    "another's key under the id of ours": (lambda r: resigned(r, key=STRANGER), "signature"),
    "another type": (lambda r: resigned(r, {**HEADER, "typ": REVOCATION_TYPE}), "signature"),
    "no type": (lambda r: resigned(r, {"alg": "EdDSA", "kid": KEY.kid}), "signature"),
    "no key id": (lambda r: resigned(r, {"alg": "EdDSA", "typ": DECISION_TYPE}), "signature"),
    "more in the header": (lambda r: resigned(r, {**HEADER, "cty": "json"}), "signature"),
    "no algorithm": (
        lambda r: spoilt(r, lambda s: f"{b64(json.dumps({**HEADER, 'alg': 'none'}).encode())}.{s.split('.')[1]}."),
        "signature",
    ),
    "a secret made of the public key": (
        lambda r: {**r, "jws": by_secret(r["decision"])},
        "signature",
    ),
    "a header that says two things": (
        lambda r: spoilt(r, lambda s: b64(json.dumps(HEADER)[:-1].encode() + b',"alg":"none"}') + s[s.index(".") :]),
        "signature",
    ),
    "truncated": (lambda r: spoilt(r, lambda s: s[:-20]), "signature"),
    "without its signature": (lambda r: spoilt(r, lambda s: s.rpartition(".")[0]), "signature"),
    "with an empty signature": (lambda r: spoilt(r, lambda s: s.rpartition(".")[0] + "."), "signature"),
    "with more behind": (lambda r: spoilt(r, lambda s: s + ".x"), "signature"),
    "with padding": (lambda r: spoilt(r, lambda s: s + "=="), "signature"),
    "in another spelling": (lambda r: spoilt(r, relaxed), "signature"),
    "with a line break": (lambda r: spoilt(r, lambda s: s + "\n"), "signature"),
    "no text": (lambda r: {**r, "jws": None}, "signature"),
    "nothing": (lambda r: {name: value for name, value in r.items() if name != "jws"}, "signature"),
    "a decision in clear that is another": (lambda r: changed(r, "verdict", "rejected"), "payload"),
    "more in clear": (lambda r: changed(r, "reason", "better"), "payload"),
    "signed with spaces": (lambda r: {**r, "jws": signed(json.dumps(r["decision"]).encode())}, "payload"),
    "re-ordered": (
        lambda r: {
            **r,
            "jws": signed(json.dumps(dict(reversed(r["decision"].items())), separators=(",", ":")).encode()),
        },
        "payload",
    ),
    "signed something else": (lambda r: {**r, "jws": signed(b"{}")}, "payload"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries(name: str) -> None:
    forge, check = FORGERIES[name]
    found = judged(forge(good()))
    assert found[:1] == [check]
    assert check == "payload" or found == ["signature"] or found == ["signature", "payload"]


def test_a_payload_that_was_exchanged() -> None:
    """The signature is of another decision, and so is what is said in clear."""
    given = good()
    head, _, signature = given["jws"].split(".")
    other = canonical_json({**given["decision"], "version": 3})
    found = judge({**given, "jws": f"{head}.{b64(other)}.{signature}"}, keys())
    assert failed(found) == ["signature", "payload"]
    assert text(found, "payload") == "failed: the signed decision has another version"


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"exp": AT.timestamp() + 3600}, None),
        ({"exp": AT.timestamp() - 20}, None),  # clocks differ
        ({"exp": AT.timestamp() - 60}, "key"),
        ({"exp": "never"}, "key"),
        ({"nbf": AT.timestamp() + 20}, None),
        ({"nbf": AT.timestamp() + 60}, "key"),
        ({"revoked": {"revoked_at": AT.timestamp() + 9_999, "reason": "compromised"}}, "key"),
        ({"revoked": {}}, "key"),
        ({"revoked": True}, "key"),
        ({"revoked": None}, None),
        ({"kty": "EC"}, "signature"),
        ({"crv": "Ed448"}, "signature"),
        ({"x": "AAAA"}, "signature"),
        ({"x": None}, "signature"),
    ],
)
def test_what_is_said_of_the_key(members: dict[str, Any], name: str | None) -> None:
    assert judged(good(), keys(**members)) == ([name] if name else [])


def test_why_a_key_does_not_count() -> None:
    revoked = {"revoked_at": AT.timestamp(), "reason": "compromised"}
    assert text(judge(good(), keys(revoked=revoked)), "key") == (
        f"failed: it is signed by the key {KEY.kid}, which was revoked at 2026-01-14T12:00:00+00:00 (compromised)"
    )


@pytest.mark.parametrize(
    "known",
    [{}, {"keys": None}, {"keys": []}, {"keys": ["x", None]}, keys(STRANGER), {"keys": keys()["keys"] * 2}],
)
def test_sets_of_keys_that_do_not_help(known: dict[str, Any]) -> None:
    found = judge(good(), known)
    assert failed(found) == ["signature"]
    assert text(found, "key").startswith("not checkable")


# -- what it was decided on ---------------------------------------------------------------------------------------


def with_inputs(given: Record, **changes: Any) -> Record:
    return {**given, "inputs": inputs(**changes)}


def other_documents(given: Record, *texts: str) -> Record:
    return {**given, "documents": {**given["documents"], **{parse(one).digest: one for one in texts}}}


def swapped_document(given: Record) -> Record:
    (digest,) = given["documents"]
    return {**given, "documents": {digest: document("p", **asks(REVIEW))}}


EXCHANGED: dict[str, tuple[Callable[[Record], Record], list[str]]] = {
    "better metrics": (lambda r: with_inputs(r, candidate={"metrics": {"accuracy": 0.99}}), ["inputs"]),
    "no inputs": (lambda r: {**r, "inputs": {}}, ["inputs"]),
    "inputs that are none": (lambda r: {**r, "inputs": [1]}, ["inputs"]),
    "inputs left out": (lambda r: {name: v for name, v in r.items() if name != "inputs"}, ["inputs"]),
    "a number that is none": (lambda r: with_inputs(r, candidate={"metrics": {"a": float("nan")}}), ["inputs"]),
    "no documents": (lambda r: {**r, "documents": {}}, ["policies"]),
    "documents left out": (lambda r: {name: v for name, v in r.items() if name != "documents"}, ["policies"]),
    "another document": (swapped_document, ["policies"]),
    "a document that is none": (lambda r: {**r, "documents": dict.fromkeys(r["documents"], "x")}, ["policies"]),
    "a document too many": (lambda r: other_documents(r, document("q")), ["policies"]),
    "no decision": (lambda r: {name: v for name, v in r.items() if name != "decision"}, ["record"]),
    "a decision that is none": (lambda r: {**r, "decision": {"verdict": "approved"}}, ["record"]),
    "a decision that is no JSON": (lambda r: {**r, "decision": {"verdict": float("nan")}}, ["record"]),
    "half a character": (lambda r: {**r, "decision": {"verdict": "\ud800"}}, ["record"]),
    "more than a decision": (lambda r: changed(r, "more", 1), ["record"]),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_what_was_exchanged_has_a_name(name: str) -> None:
    exchange, checks = EXCHANGED[name]
    found = judge(exchange(good()), keys())
    assert failed(found) == checks
    if found.decision is not None:
        assert text(found, "verdict").startswith("not checkable")


def test_a_record_of_another_model_put_together_with_ours() -> None:
    """Each half is genuine; together they are not."""
    theirs = record(PLAIN, votes(), given=inputs(model={"name": "churn"}, request={"transition_id": "t-2"}))
    ours = good()
    assert judged(theirs) == []
    assert judged({**ours, "jws": theirs["jws"]}) == ["payload"]
    assert judged({**ours, "inputs": theirs["inputs"]}) == ["inputs"]
    assert judged({**ours, "decision": theirs["decision"]}) == ["payload", "inputs"]
    assert judged({**theirs, "decision": ours["decision"], "jws": ours["jws"]}) == ["inputs"]


def test_a_truncated_record() -> None:
    given = good()
    for name in given:
        assert judged({key: value for key, value in given.items() if key != name})


def test_a_record_without_its_votes_or_gates() -> None:
    given = good()
    assert judged(changed(given, "votes", [])) == ["payload", "quorum", "verdict"]
    assert judged(changed(given, "gates", [])) == ["payload", "gates"]
    gates = given["decision"]["gates"]
    assert judged(changed(given, "gates", gates[::-1])) == ["payload", "gates"]


def test_whatever_is_left_out_or_put_in_is_found() -> None:
    """Every single value of a record, changed or dropped, makes it fail."""
    given = record(TWO, votes(TWO, person(), person("rita", "risk"), person("rolf", "risk")))
    assert judged(given) == []
    for path in paths(given):
        for change in (drop, other):
            spoiled = copy.deepcopy(given)
            change(spoiled, path)
            assert judge(spoiled, keys()).ok is False, path


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, one in items for found in [(*path, name), *paths(one, (*path, name))]]


def drop(given: Any, path: tuple[Any, ...]) -> None:
    del holder(given, path)[path[-1]]


def other(given: Any, path: tuple[Any, ...]) -> None:
    holder(given, path)[path[-1]] = ["x"]


def holder(given: Any, path: tuple[Any, ...]) -> Any:
    for name in path[:-1]:
        given = given[name]
    return given


# -- garbage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{}, {"decision": None}, {"decision": []}, {"decision": {}, "jws": 5}, {"jws": "a.b.c"}]
)
def test_garbage_is_judged_without_a_crash(given: Record) -> None:
    found = judge(given, keys())
    assert failed(found)[0] == "record"
    assert found.decision is None


def test_inputs_that_no_service_freezes() -> None:
    """Signed, and of the right digest; but nothing can be evaluated on them."""
    for spoil in ({"model": {"tags": None}}, {"candidate": {"metrics": [1]}}, {"request": {"reason": 5}}):
        policies = in_force(
            document("p", {"transition": {}, "tags": {"a": "b"}}, request={"reason": {"required": True}})
        )
        made = record(policies, given=inputs(model={"tags": {"a": "b"}}))
        given = {**inputs(model={"tags": {"a": "b"}}), **{name: inputs(**spoil)[name] for name in spoil}}
        decision = {**made["decision"], "inputs_digest": digest_of(given)}
        found = judge(resigned({**made, "decision": decision, "inputs": given}), keys())
        assert failed(found) == ["request", "verdict"], spoil
        assert "not such as policies can be judged by" in text(found, "verdict")
