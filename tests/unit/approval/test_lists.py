"""What somebody may read, as parts of an index and patterns."""

import pytest

from approval.lists import EVERY, Pattern, Section, readable

ALL = frozenset({EVERY})
POLICIES = Section("*", None, ALL)


@pytest.mark.parametrize(
    ("grants", "workspace", "model", "expected"),
    [
        ([EVERY], None, None, {Section(None, None, ALL)}),
        ([EVERY], "bank", None, {Section("bank", None, ALL)}),
        ([EVERY], "bank", "m", {Section("bank", "m", ALL)}),
        ([EVERY], None, "m", {Section(None, "m", ALL)}),
        ([], None, None, {POLICIES}),
        ([], None, "production", {Section("*", "production", ALL)}),
        ([], "bank", None, set()),
        ([("bank", "*")], None, None, {POLICIES, Section("bank", None, ALL)}),
        ([("bank", "*")], "shop", None, set()),
        ([("bank", "*"), ("bank", "m")], "bank", "m", {Section("bank", "m", ALL)}),
        ([("*", "fraud")], None, None, {POLICIES, Section(None, "fraud", ALL)}),
        ([("*", "f*"), ("b?", "g")], None, None, {
            POLICIES, Section(None, None, frozenset({("*", "f*")})), Section(None, "g", frozenset({("b?", "*")})),
        }),
        ([("*", "f*"), ("*", "g*")], "bank", None, {Section("bank", None, frozenset({("*", "f*"), ("*", "g*")}))}),
        ([("*", "f*")], "bank", "fraud", {Section("bank", "fraud", ALL)}),
        ([("*", "f*")], "bank", "score", set()),
    ],
)  # fmt: skip
def test_readable(grants: list[Pattern], workspace: str | None, model: str | None, expected: set[Section]) -> None:
    assert {*readable(grants, workspace, model)} == expected
