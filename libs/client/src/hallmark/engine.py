"""The policy engine on this machine: where it is installed, policies are checked and decisions judged by nobody else.

It is the optional extra `policy` (the package hallmark-policy), loaded when it is first needed: CEL takes 50 MB.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hallmark.approval_results import Mistake, PolicyCheck, Trial
from hallmark.errors import HallmarkError

TESTS = ".test.yaml"
INSTALL = "pip install 'hallmark-registry[policy]'"


def installed() -> bool:
    return find_spec("policy") is not None and find_spec("cel_expr_python") is not None


def require() -> None:
    """Raises HallmarkError, code `no-policy-engine`, where it is not installed."""
    if not installed():
        raise HallmarkError("no-policy-engine", f"this needs the policy engine on this machine: {INSTALL}")


def check(document: str) -> PolicyCheck:
    """Whether a document is a policy.

    Raises:
        HallmarkError: code `no-policy-engine`.
    """
    require()
    from policy.document import parse
    from policy.reader import PolicyError

    try:
        found = parse(document)
    except PolicyError as error:
        return PolicyCheck(errors=[Mistake(line=m.line, field=m.field, message=m.message) for m in error.mistakes])
    return PolicyCheck(name=found.name, digest=found.digest)


def schema() -> dict[str, Any]:
    """The JSON Schema of policies.

    Raises:
        HallmarkError: code `no-policy-engine`.
    """
    require()
    from policy.schema import policy_schema

    return policy_schema()


def run_tests(path: Path) -> list[Trial]:
    """Runs a file of tests of policies, or every one below a directory (`*.test.yaml`; `policy.trials` shows how).

    Raises:
        HallmarkError: code `no-policy-engine`.
    """
    require()
    from policy.trials import run

    return [
        Trial(
            file=str(path / one.file if path.is_dir() else path),
            line=one.line,
            case=one.case,
            passed=one.ok,
            text=one.text,
        )
        for one in run(path)
    ]


def read_text(path: Path) -> str:
    """Raises HallmarkError, code `invalid-file`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HallmarkError("invalid-file", f"{path} cannot be read: {error}") from error
