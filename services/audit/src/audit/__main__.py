"""`python -m audit serve|migrate|prune`."""

from audit.app import build
from audit.retention import command as prune
from audit.settings import AuditSettings
from kit.main import run

run("audit", AuditSettings, build, append_only=("entry", "node", "finding", "checkpoint"), commands=[prune.COMMAND])
