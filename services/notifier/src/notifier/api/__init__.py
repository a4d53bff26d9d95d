"""HTTP in: subscriptions, deliveries, silences, templates, links in mail, and the keys that sign webhooks."""

from notifier.api.callers import Callers
from notifier.api.deliveries import router as deliveries
from notifier.api.keys import router as keys
from notifier.api.mail import router as mail
from notifier.api.quiet import router as quiet
from notifier.api.subscriptions import router as subscriptions
from notifier.api.templates import router as templates

__all__ = ["Callers", "deliveries", "keys", "mail", "quiet", "subscriptions", "templates"]
