"""`python -m audit serve|migrate|sign|prune|check-export`."""

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
    commands=[signer.COMMAND, prune.COMMAND, check.COMMAND],
)
