"""`python -m audit serve|migrate|sign|prune|rebuild|check-export`."""

from audit import rebuild
from audit.app import build
from audit.out import command as check
from audit.retention import command as prune
from audit.settings import AuditSettings
from audit.tlog import signer
from kit.main import run

run(
    "audit",
    AuditSettings,
    build,
    append_only=("entry", "node", "finding", "checkpoint"),
    keeps_people=True,
    commands=[signer.COMMAND, prune.COMMAND, rebuild.COMMAND, check.COMMAND],
)
