"""A comparison of versions for people: tables in the terminal, Markdown for a pull request."""

import json
from typing import Any

from rich.text import Text

from hallmark.output import out, table, text

PARTS = ("parameters", "signature", "lineage", "environment", "files", "artifact")
LONGEST = 60
MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "\\`*_[]<>|#@&"})


def print_comparison(found: dict[str, Any]) -> None:
    """Metrics with their differences, then every other field that is not the same everywhere."""
    heads = [f"v{number}" for number in found["versions"]]
    rows: list[list[object]] = []
    for name, metric in found["metrics"].items():
        better = metric.get("better")
        cells = zip(metric["values"], metric["differences"], strict=True)
        rows.append([name, *(_with_difference(value, difference, better) for value, difference in cells)])
    out.print(table(("metric", *heads), rows))
    differing = [[name, *(_short(value) for value in values)] for name, values in _differing(found)]
    if differing:
        out.print()
        out.print(table(("differs", *heads), differing))


def markdown(model: str, found: dict[str, Any]) -> str:
    """The same as GitHub and GitLab show it. Bold is the best value of a metric whose direction is declared."""
    heads = [f"v{number} ({stage})" for number, stage in zip(found["versions"], found["stages"], strict=True)]
    lines = [f"### {_cell(model)}: {' against '.join(f'v{number}' for number in reversed(found['versions']))}", ""]
    metrics = [
        [name, *(_told(number, metric, place) for place, number in enumerate(found["versions"]))]
        for name, metric in found["metrics"].items()
    ]
    lines += _table(["metric", *heads], metrics) if metrics else ["No metrics.", ""]
    if differing := [[name, *(_short(value) for value in values)] for name, values in _differing(found)]:
        lines += ["<details><summary>What else differs</summary>", ""]
        lines += _table(["", *heads], differing)
        lines += ["</details>", ""]
    return "\n".join(lines)


def _differing(found: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    return [(f"{part}.{name}", values) for part in PARTS for name, values in found.get(part, {}).items()]


def _told(number: int, metric: dict[str, Any], place: int) -> str:
    value, difference = metric["values"][place], metric["differences"][place]
    shown = text(value) + (f" ({difference:+.4f})" if difference else "")
    return f"**{shown}**" if metric.get("best") == number else shown


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line if line == '---' else _cell(line) for line in row)} |" for row in lines] + [""]


def _cell(value: str) -> str:
    """Nobody's text becomes markup of the page; only our own bold stays."""
    inner = value.removeprefix("**").removesuffix("**")
    inner = " ".join(inner.translate(MARKS).split())
    return f"**{inner}**" if value.startswith("**") and value.endswith("**") and len(value) > 4 else inner


def _with_difference(value: float | None, difference: float | None, better: str | None) -> Text:
    """Green is better, red worse; without a declared direction no colour judges."""
    shown = Text(text(value))
    if difference:
        style = "" if better is None else "green" if (difference > 0) == (better == "higher") else "red"
        shown.append(f" ({difference:+.4f})", style=style)
    return shown


def _short(value: object) -> str:
    shown = text(value) if not isinstance(value, dict | list) else json.dumps(value)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
