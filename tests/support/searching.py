"""A small registry of odd rows to search, and what a search over it must find, worked out in plain Python."""

import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.search.fields import Scope
from registry.search.syntax import DENIED, And, Comparison, Family, Field, Key, Missing, Node, Not, Operator, Or
from registry.tables import AliasRow, MetricRow, ModelRow, NameRow, ParameterRow, TagRow, VersionRow, t

WORKSPACE = "default"
START = datetime(2026, 1, 1, tzinfo=UTC)
STAGES = ("Development", "Staging", "Production", "Archived")
TEXTS = ("", "a", "A", "b%", "b_", "\\", "it's", 'q"', "x" * 63, "x" * 64, "x" * 64 + "y", "x" * 64 + "z", "ü")
NUMBERS = (-1.5, 0.0, 0.1, 0.25, 1.0, 1e300)


@dataclass(frozen=True)
class Row:
    """A model or a version. `values` has a list for each field: empty where it is missing."""

    identity: tuple[Any, ...]
    values: dict[tuple[Family, str], list[Any]] = field(default_factory=dict)

    def of(self, field: Field) -> list[Any]:
        return self.values.get((field.family, field.key), [])


def content(filename: str) -> dict[str, Any]:
    return {"artifact": {"filename": filename}, "metrics": {}, "parameters": {}}


async def fill(tx: AsyncConnection, seed: int = 1) -> dict[Scope, list[Row]]:
    """Writes the rows; gives those that a search may find. One model is deleted, one has another name now."""
    dice = random.Random(seed)
    found: dict[Scope, list[Row]] = {Scope.MODELS: [], Scope.VERSIONS: []}
    for number in range(7):
        await _model(tx, dice, f"m{number}", deleted=number == 5, found=found)
    return found


async def _model(
    tx: AsyncConnection, dice: random.Random, model: str, *, deleted: bool, found: dict[Scope, list[Row]]
) -> None:
    name = "renamed" if model == "m3" else model
    owner, description = dice.choice([None, "ana", "bo"]), dice.choice(TEXTS)
    times = [START + timedelta(milliseconds=dice.randrange(3)) for _ in range(2)]
    by = dice.choice(["ana", "bo"])
    tags = _some(dice, ("k", "odd key"), TEXTS)
    place = {"workspace": WORKSPACE, "model": model}
    row: dict[str, Any] = place | {
        "name": name,
        "owner": owner,
        "description": description,
        "tags": tags,
        "versions": 0,
    }
    row |= {"registered_by": by, "registered_at": times[0], "updated_at": times[1]}
    await tx.execute(sa.insert(t(ModelRow)).values(**row, deleted_at=START if deleted else None))
    await tx.execute(sa.insert(t(NameRow)), [place | {"name": n} for n in {model, name}])
    await _insert(tx, TagRow, place | {"version": 0}, tags)
    aliases = {f"alias{n}": dice.randint(1, 6) for n in range(dice.randint(0, 4))}
    attributes: dict[str, list[Any]] = {
        "name": [name, model],
        "owner": [owner] if owner else [],
        "description": [description],
    }
    stages: set[str] = set()
    present: list[str] = []
    for version in range(1, dice.choice([1, 7, 7])):
        here = place | {"version": version}
        mine = [alias for alias, target in aliases.items() if target == version]
        for alias in mine:
            await tx.execute(sa.insert(t(AliasRow)).values(**here, alias=alias, sequence=1, set_by="ana", set_at=START))
        present += mine
        stage, gone = dice.choice(STAGES), not mine and dice.random() < 0.15
        row_of_version = await _version(tx, dice, here, stage, mine, attributes, deleted=gone)
        stages |= set() if gone else {stage}
        found[Scope.VERSIONS] += [] if deleted or gone else [row_of_version]
    all_ = attributes | {"created_at": [times[0]], "updated_at": [times[1]], "created_by": [by]}
    all_ |= {"stage": sorted(stages), "alias": sorted(present)}
    values = {(Family.ATTRIBUTE, key): value for key, value in all_.items()}
    values |= {(Family.TAG, key): [value] for key, value in tags.items()}
    found[Scope.MODELS] += [] if deleted else [Row((model,), values)]


async def _version(
    tx: AsyncConnection,
    dice: random.Random,
    here: dict[str, Any],
    stage: str,
    aliases: list[str],
    attributes: dict[str, list[Any]],
    *,
    deleted: bool,
) -> Row:
    times = [START + timedelta(milliseconds=dice.randrange(3)) for _ in range(2)]
    by, run = dice.choice(["ana", "bo"]), dice.choice([None, "run1", "run2"])
    status, filename = dice.choice(["ready", "pending", "rejected"]), dice.choice(["f.onnx", "g.pkl"])
    tags = _some(dice, ("k", "odd key"), TEXTS)
    metrics = _some(dice, ("auc", "loss"), NUMBERS)
    parameters = _some(dice, ("lr", "odd.`key`"), TEXTS)
    row = here | {"digest": "", "artifact_digest": "", "stage": stage, "status": status, "content": content(filename)}
    row |= {
        "tags": tags,
        "description": "",
        "run_id": run,
        "correlationid": "",
        "registered_by": by,
        "registered_at": times[0],
        "updated_at": times[1],
        "deleted_at": START if deleted else None,
    }
    await tx.execute(sa.insert(t(VersionRow)).values(**row))
    for table, given in ((TagRow, tags), (MetricRow, metrics), (ParameterRow, parameters)):
        await _insert(tx, table, here, given)
    own = attributes | {"created_at": [times[0]], "updated_at": [times[1]], "created_by": [by], "stage": [stage]}
    own |= {"status": [status], "run_id": [run] if run else [], "source_path": [filename], "alias": sorted(aliases)}
    own["version_number"] = [here["version"]]
    values = {(Family.ATTRIBUTE, key): value for key, value in own.items()}
    for family, named in ((Family.TAG, tags), (Family.METRIC, metrics), (Family.PARAMETER, parameters)):
        values |= {(family, key): [value] for key, value in named.items()}
    return Row((here["model"], here["version"]), values)


def _some(dice: random.Random, keys: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    return {key: dice.choice(values) for key in keys if dice.random() < 0.7}


async def _insert(tx: AsyncConnection, table: Any, place: dict[str, Any], given: dict[str, Any]) -> None:
    if given:
        await tx.execute(sa.insert(t(table)), [place | {"name": key, "value": value} for key, value in given.items()])


def passes(scope: Scope, row: Row, node: Node) -> bool:
    """What the package's docstring says of a checked tree, one row at a time."""
    match node:
        case And(parts):
            return all(passes(scope, row, part) for part in parts)
        case Or(parts):
            return any(passes(scope, row, part) for part in parts)
        case Not(part):
            return not passes(scope, row, part)
        case Missing(field, negated):
            return bool(row.of(field)) == negated
        case Comparison(field, operator, literals):
            values = [literal.value for literal in literals]
            positive = DENIED.get(operator, operator)
            fits = [_fits(field, value, positive, values) for value in row.of(field)]
            if operator not in DENIED:
                return any(fits)
            several = field.key == "alias" or (field.key == "stage" and scope is Scope.MODELS)
            return not any(fits) and (bool(fits) or (several and field.family is Family.ATTRIBUTE))


def _fits(field: Field, value: Any, operator: Operator, wanted: list[Any]) -> bool:
    if field.family is Family.ATTRIBUTE and field.key in ("stage", "status"):
        value, wanted = value.lower(), [text.lower() for text in wanted]
    match operator:
        case Operator.IN:
            return value in wanted
        case Operator.EQUAL:
            return bool(value == wanted[0])
        case Operator.LESS:
            return bool(value < wanted[0])
        case Operator.AT_MOST:
            return bool(value <= wanted[0])
        case Operator.MORE:
            return bool(value > wanted[0])
        case Operator.AT_LEAST:
            return bool(value >= wanted[0])
    flags = re.DOTALL | (re.IGNORECASE if operator is Operator.ILIKE else 0)
    parts = re.findall(r"\\.|.", wanted[0], re.DOTALL)
    pattern = "".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts)
    return re.fullmatch(pattern, value, flags) is not None


def in_order(rows: list[Row], keys: tuple[Key, ...]) -> list[Row]:
    """Missing values last in both directions; ties in the direction of the last key."""
    found = sorted(rows, key=lambda row: row.identity, reverse=keys[-1].descending)
    for key in reversed(keys):
        having = [row for row in found if row.of(key.field)]
        lacking = [row for row in found if not row.of(key.field)]
        found = sorted(having, key=lambda row: _first(key, row), reverse=key.descending) + lacking
    return found


def _first(key: Key, row: Row) -> Any:
    values = row.of(key.field)
    value = values[0]  # of aliases, which are sorted, and of names, the present one
    cut = key.field.family in (Family.TAG, Family.PARAMETER) or key.field.key == "description"
    return value[:64] if cut else value
