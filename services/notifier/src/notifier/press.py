"""Renders people's templates in a process of its own, ended when it takes too long: `python -m notifier.press`.

A sandbox keeps a template from the program; nothing but another process keeps it from its time and its memory. One
request a line, as JSON: `{"channel", "parts", "context"}`; without a context the parts are only checked.
"""

import json
import resource
import sys
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {"notice", "event", "data"}
MEMORY_BYTES = 512 * 1024 * 1024
OUTPUT = 100_000
SLACK_TEXT = ("slack", "webhook")  # of webhooks those of Slack's format have words


def escaped(value: Any) -> str:
    """Slack's escaping: without it text could mention people, or hide a link under other words."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def environment(channel: str, part: str) -> ImmutableSandboxedEnvironment:
    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    options |= {"autoescape": part == "html"} | ({"finalize": escaped} if channel in SLACK_TEXT else {})
    return ImmutableSandboxedEnvironment(**options)


def rendered(channel: str, part: str, text: str, context: dict[str, Any] | None) -> str:
    """Raises TemplateError, or whatever a template may do wrong."""
    env = environment(channel, part)
    strange = find_undeclared_variables(env.parse(text)) - VARIABLES - set(env.globals)
    if strange:
        raise TemplateError(f"there is no {', '.join(sorted(strange))}; there are {', '.join(sorted(VARIABLES))}")
    template = env.from_string(text)
    if context is None:
        return ""
    made, size = list[str](), 0
    for piece in template.generate(context):
        made.append(piece)
        size += len(piece)
        if size > OUTPUT:
            raise TemplateError(f"more than {OUTPUT} characters")
    return "".join(made)


def answer(line: str) -> dict[str, Any]:
    asked = json.loads(line)
    done = dict[str, str]()
    for part, text in asked["parts"].items():
        try:
            done[part] = rendered(asked["channel"], part, text, asked["context"])
        except MemoryError:
            return {"error": f"{part}: it needs too much memory"}
        except Exception as error:  # whatever an author wrote
            return {"error": f"{part}: {type(error).__name__}: {error}"[:500]}
    return {"parts": done}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
