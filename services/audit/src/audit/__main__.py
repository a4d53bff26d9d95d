"""`python -m audit serve|migrate`."""

from audit.app import build
from audit.settings import AuditSettings
from kit.main import run

run("audit", AuditSettings, build, append_only=("entry", "node", "finding", "checkpoint"))
