"""The tlog-policy file, read by the rules of the specification (C2SP tlog-policy)."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from tests.support.tlog_copy import vkeys

from audit.note import parse_vkey
from audit.out.policy import tlog_policy


def witness(name: str, kind: int = 4, fill: int = 1) -> str:
    data = bytes([kind]) + bytes([fill]) * (32 if kind == 4 else 1312)
    key_id = sha256(name.encode() + b"\n" + data).hexdigest()[:8]
    return f"{name}+{key_id}+{b64encode(data).decode()}"


def satisfied(policy: str, cosigned: set[str]) -> bool:
    """Whether witnesses with these key lines are enough. Every name is defined before it is used, and once."""
    known: dict[str, bool] = {"none": True}
    members: set[str] = set()
    quorum: list[str] = []
    keys: set[str] = set()
    assert re.fullmatch(r"([\x20-\x7e\x80-\uffff\t]*\n)+", policy)
    for line in policy.splitlines():
        match line.split():
            case ["#", *_]:
                continue
            case ["log", vkey]:
                parse_vkey(vkey)
                assert vkey not in keys
                keys.add(vkey)
            case ["witness", name, vkey]:
                assert name not in known
                assert vkey not in keys
                known[name] = vkey in cosigned
                keys.add(vkey)
            case ["group", name, k, *names]:
                assert name not in known
                assert names
                assert not members & set(names)
                members |= set(names)
                wanted = len(names) if k == "all" else 1 if k == "any" else int(k)
                assert 1 <= wanted <= len(names)
                known[name] = sum(known[one] for one in names) >= wanted
            case ["quorum", name]:
                quorum.append(name)
            case _:
                raise AssertionError(line)
    (only,) = quorum
    return known[only]


def test_a_log_without_witnesses_demands_none() -> None:
    policy = tlog_policy(vkeys(), [], 0)
    assert policy == "".join(f"log {vkey}\n" for vkey in vkeys()) + "quorum none\n"
    assert satisfied(policy, set())


@pytest.mark.parametrize("quorum", [0, 1, 2, 3])
def test_so_many_witnesses_must_have_cosigned(quorum: int) -> None:
    own = [witness("w.example/a"), witness("none", fill=2), witness("w.example/ünï", fill=3)]
    policy = tlog_policy(vkeys(), own, quorum)
    for count in range(4):
        assert satisfied(policy, set(own[:count])) is (count >= quorum)


def test_the_two_keys_of_one_witness_count_as_one() -> None:
    own = [witness("w.example/a"), witness("w.example/a", kind=6), witness("w.example/b", fill=2)]
    policy = tlog_policy(vkeys(), own, 2)
    assert not satisfied(policy, set(own[:2]))
    assert not satisfied(policy, {own[0], own[2]})
    assert satisfied(policy, set(own))
