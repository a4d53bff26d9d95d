"""Desired and actual side by side: what the registry wants served, and what servers say they have loaded."""

from typing import Any

import sqlalchemy as sa

from contracts.registry import ServingReported
from kit.db import Database
from registry import queries, state
from registry.serving.changes import Found, History
from registry.tables import ServerRow, VersionRow, t

RUNNING = ("loaded", "serving")
DESIRED = ("version", "digest", "sequence", "at", "revoked")


async def is_news(db: Database, report: ServingReported) -> bool:
    """Whether the report says anything that the last one of this server did not.

    Raises:
        Problem: 404, there is no such version.
    """
    version = t(VersionRow)
    here = (version.c.workspace == report.workspace, version.c.model == report.model)
    known = sa.select(sa.literal(1)).where(*here, version.c.version == report.version)
    async with db.snapshot() as tx:
        if await tx.scalar(known) is None:
            raise state.no_version(report.model, report.version)
        return not await queries.is_reported(tx, report)


async def side_by_side(db: Database, history: History, found: Found) -> dict[str, Any]:
    """Every target of the model with what it is (desired) and which server runs what (actual).

    A server is in step when it runs the version that its target names; one that has stopped does not count. Nobody is
    in step with a version that was revoked.
    """
    table, version = t(ServerRow), t(VersionRow)
    here = (table.c.workspace == found.workspace, table.c.model == found.model)
    of_model = (version.c.workspace == found.workspace, version.c.model == found.model)
    revoked = sa.select(version.c.version).where(*of_model, version.c.status == sa.literal_column("'revoked'"))
    async with db.snapshot() as tx:
        targets = await history.targets(tx, found)
        forbidden = frozenset(await tx.scalars(revoked))
        rows = await tx.execute(sa.select(table).where(*here).order_by(table.c.target, table.c.server))
        servers = [dict(row) for row in rows.mappings()]
    desired = {target["target"]: target for target in targets}
    wanted = [*desired, *sorted({server["target"] for server in servers} - set(desired))]
    shown = [
        _target(name, desired.get(name), [s for s in servers if s["target"] == name], forbidden) for name in wanted
    ]
    return {
        "workspace": found.workspace,
        "model": found.model,
        "name": found.name,
        "in_step": all(target["in_step"] for target in shown),
        "targets": shown,
    }


def _target(
    name: str, desired: dict[str, Any] | None, servers: list[dict[str, Any]], forbidden: frozenset[int]
) -> dict[str, Any]:
    version = desired["version"] if desired and not desired["revoked"] else None
    actual = [
        {
            **{key: server[key] for key in ("server", "version", "state", "detail", "reported_at")},
            "revoked": server["version"] in forbidden,
            "in_step": server["version"] == version and server["state"] in RUNNING,
        }
        for server in servers
    ]
    return {
        "target": name,
        "desired": {key: desired[key] for key in DESIRED} if desired else None,
        "actual": actual,
        "in_step": all(server["in_step"] for server in actual if server["state"] != "stopped"),
    }
