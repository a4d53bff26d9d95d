"""Templates to text, one escaping per medium."""

import re
from typing import Any

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from contracts.envelope import Envelope
from notifier.notices import Notice

_ENTITY_CUT = re.compile(r"&[a-z]{0,3}$")


def clipped(text: str, limit: int) -> str:
    """At most `limit` characters, without half an escape at the end."""
    return text if len(text) <= limit else _ENTITY_CUT.sub("", text[: limit - 1]) + "\u2026"


class Renderer:
    def __init__(self) -> None:
        loader = PackageLoader("notifier")
        options: dict[str, Any] = {"loader": loader, "undefined": StrictUndefined, "trim_blocks": True}
        options |= {"lstrip_blocks": True, "keep_trailing_newline": False}
        self._plain = SandboxedEnvironment(**options, autoescape=False)
        self._html = SandboxedEnvironment(**options, autoescape=True)
        # Slack knows these three escapes only; HTML's others would be shown as they are.
        self._slack = SandboxedEnvironment(**options, autoescape=False, finalize=self.escape)

    @staticmethod
    def escape(value: Any) -> str:
        """Slack's escaping: without it text could mention people, or hide a link under other words."""
        return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    def slack(self, name: str, notice: Notice, envelope: Envelope) -> str:
        return self._slack.get_template(f"{name}.j2").render(notice=notice, event=envelope).strip()

    def html(self, notice: Notice, envelope: Envelope, unsubscribe: str | None = None) -> str:
        template = self._html.get_template("email.html.j2")
        return template.render(notice=notice, event=envelope, unsubscribe=unsubscribe)

    def text(self, notice: Notice, envelope: Envelope, unsubscribe: str | None = None) -> str:
        template = self._plain.get_template("email.txt.j2")
        return template.render(notice=notice, event=envelope, unsubscribe=unsubscribe)

    def question(self, **values: str) -> str:
        """The text of the mail that asks a mailbox."""
        return self._plain.get_template("confirm.txt.j2").render(values)

    def page(self, name: str, **values: str) -> str:
        """A page of HTML for a browser."""
        return self._html.get_template(f"{name}.html.j2").render(values)
