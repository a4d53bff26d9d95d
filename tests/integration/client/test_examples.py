"""Every command's help has an example, and each example runs as it stands against the whole system."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper
from tests.support.waiting import until_now

import approval
import hallmark
from embedded.stack import Stack
from hallmark import Client, cli, output

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]
LOCAL = ("up", "down", "status", "demo", "token create")  # of this machine; another package's, without examples yet
GROUPS = ("ml-engineers", "reviewers", "operators", "auditors", "admins", "risk")
ANY_ID = re.compile(r"019a2b3c-\S+|019f\.\.\.|0192a3b4c5\S+")
LAST = (
    "audit retention show",
    "notify remove",
    "model delete",
    "model restore",
    "version delete",
    "version restore",
    "version revoke",
    "stage rollback",
)
# What this house says no to, and why. An id of an example, which exists nowhere, may be told as not found.
NOT_FOUND = ("not-found", "no-such-")
UNKNOWN = ("notify resend", "notify confirm", "notify enable", "notify silence expire", "notify inhibition remove")
REFUSED = {
    "model create": "model-exists",
    "model delete": "model-in-use",
    "model restore": "not-deleted",
    "version delete": "version-in-use",
    "version restore": "not-deleted",
    "stage request fraud 4 Production --reason 'beats v3' --field": "transition-open",
    "audit person": "no-vault",
}


def examples() -> Iterator[tuple[str, str, bool]]:
    """(command, example, whether it would ask for a confirmation) of every command."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str, bool]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))
        if not hasattr(command, "commands"):
            asks = any("--yes" in option.opts and "Do not ask" in str(option.help) for option in command.params)
            lines = re.findall(r"\[bold\](.*?)\[/bold\]", command.epilog or "") or [""]
            yield from ((" ".join(path), line.replace("\\[", "["), asks) for line in lines)

    yield from walk(cli.command(), ())


EXAMPLES = sorted((one for one in examples() if one[0] not in LOCAL), key=lambda one: one[0] in LAST)


def test_every_help_has_an_example() -> None:
    assert [command for command, line, _ in EXAMPLES if not line.startswith(f"hallmark {command}")] == []
    assert len(EXAMPLES) > 100


POLICY_TEST = """\
policies: [production.yaml]
cases:
  - name: a reviewer lets a good model into production
    candidate: {metrics: {accuracy: 0.95}}
    votes: [{by: ben, groups: [reviewers]}]
    expect: {verdict: approved}
"""


def onnx_model() -> bytes:
    """y = -x"""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
def prepared(ana: Client, ben: Client, person: Callable[..., Client], tmp_path: Path) -> Path:
    """A directory and a workspace with what the examples name: files, and four versions of the model fraud."""
    policies = tmp_path / "policies"
    shutil.copytree(Path(approval.__file__).parent / "policies", policies)
    shutil.copy(policies / "production.yaml", tmp_path)
    for name, text in {
        "policies/production.test.yaml": POLICY_TEST,
        "card.pdf": "a card",
        "stage.j2": "{{ notice.headline }}",
        "retention.yaml": "rules: [{topic: '*', type: '*', days: 3650}]",
        "rules.yaml": "naming: '[a-z]+(-[a-z]+)*'",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model.onnx").write_bytes(onnx_model())
    for number in range(1, 5):
        (tmp_path / "bytes").write_bytes(b"%d" % number)
        ana.register("fraud", tmp_path / "bytes", metrics={"auc": 0.9 + number / 100, "accuracy": 0.95})
    for number in (2, 3):
        assert ana.request_stage("fraud", number, "Staging", "try", wait=60).applied
        asked = ana.request_stage("fraud", number, "Production", "good", wait=0)
        ben.request(asked.transition_id, wait=60)
        ben.approve(asked.transition_id, "fine")
        assert ana.wait_for(asked, 60).applied
    assert ana.request_stage("fraud", 4, "Staging", "try", wait=60).applied
    ana.set_alias("fraud", "champion", 3)
    ana.set_alias("fraud", "challenger", 4)
    auditor = person("aud", "auditors")
    until_now(lambda: auditor.production("fraud").version == 3)
    (tmp_path / "old-checkpoint").write_text(auditor.checkpoint())
    return tmp_path


class Shared(Client):
    """One connection for all commands."""

    def close(self) -> None:
        pass


def test_each_example_runs(
    prepared: Path, house: Stack, ana: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepared)
    one = Shared(house.urls["registry"], house.token("root", list(GROUPS)), workspace=ana.workspace)
    monkeypatch.setattr(output.Caller, "client", lambda _: one)
    (prepared / "prediction.json").write_text(json.dumps(hallmark.decision(one.resolve("fraud"), [[0.5, 1.5]])))
    (prepared / "keys.json").write_text(json.dumps(one.decision_keys()))
    promoted = next(t for t in one.transitions("fraud", status="applied") if t.to_stage == "Production")
    mine = one.subscribe("webhook", "http://127.0.0.1:9/hook")
    real = {"decision": promoted.transition_id, "notify": mine.subscription_id}

    def run(words: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", words)
        try:
            cli.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code or 0, told.out, told.err

    wrong = []
    for command, example, asks in EXAMPLES:
        line = example.replace("'hallmark.example/log+5b3f1c2d+AY5l...'", f"'{one.verifier_key()}'")
        if (known := real.get(command.split()[0])) and command not in UNKNOWN:
            line = ANY_ID.sub(known, line)
        words = [
            word
            for part in shlex.split(line)
            for word in (sorted(map(str, Path().glob(part))) if "*.yaml" in part else [part])
        ]
        words, target = (words[:-2], Path(words[-1])) if ">" in words else (words, None)
        # Nobody answers here.
        words = [
            "0" if before == "--wait" and word.isdigit() else word
            for before, word in zip(["", *words], words, strict=False)
        ]
        code, told, err = run([*words, "--yes"] if asks and "--yes" not in words else words)
        if target is not None:
            target.write_text(told)
        expected = next((why for known, why in REFUSED.items() if line.startswith(f"hallmark {known}")), None)
        refused = expected in err if expected else bool(ANY_ID.search(line) and any(word in err for word in NOT_FOUND))
        if "Traceback" in err or (code not in (0, 3) and not refused) or (code == 0 and expected):
            wrong.append(f"{line}: exit {code}: {' '.join(err.split())[:200]}")
    assert wrong == [], "\n".join(wrong)
