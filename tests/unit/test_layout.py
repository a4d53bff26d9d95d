"""Rules of the layout that import-linter cannot say."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOMAINS = sorted(ROOT.glob("services/*/src/*/domain.py"))
# I/O of the standard library has no place in a rule either.
IMPURE = {"os", "sys", "io", "socket", "subprocess", "pathlib", "asyncio", "threading", "time", "random", "urllib"}


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.parent.name)
def test_the_domain_imports_only_pure_standard_modules_contracts_and_policies(path: Path) -> None:
    allowed = (sys.stdlib_module_names - IMPURE) | {"contracts", "policy"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top in allowed or name.startswith(f"{path.parent.name}.domain"), f"{path}: {name}"


def test_every_service_has_a_domain() -> None:
    assert [path.parent.name for path in DOMAINS] == ["approval", "audit", "notifier", "registry"]
