"""Rules of the layout that import-linter cannot say."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOMAINS = sorted(ROOT.glob("services/*/src/*/domain.py"))
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
# `domain` and what else import-linter keeps pure: they may import one another.
PURE = next(contract for contract in LINTER if contract["name"] == "The domain is pure")["source_modules"]
# I/O of the standard library has no place in a rule either.
IMPURE = {"os", "sys", "io", "socket", "subprocess", "pathlib", "asyncio", "threading", "time", "random", "urllib"}


@pytest.mark.parametrize("module", PURE)
def test_the_domain_imports_only_pure_standard_modules_contracts_and_policies(module: str) -> None:
    path = ROOT / "services" / module.split(".", maxsplit=1)[0] / "src" / f"{module.replace('.', '/')}.py"
    allowed = (sys.stdlib_module_names - IMPURE) | {"contracts", "policy"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top in allowed or name in PURE, f"{path}: {name}"


def test_every_service_has_a_domain() -> None:
    assert [path.parent.name for path in DOMAINS] == ["approval", "audit", "notifier", "registry"]
