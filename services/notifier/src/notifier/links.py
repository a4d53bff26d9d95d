"""Where the console shows what an event is about. Pure."""

from urllib.parse import quote

from contracts.envelope import Envelope
from contracts.lifecycle import parse_subject
from contracts.notifier import GroupComposed
from notifier.domain import delivery_id
from notifier.requests import request_of


def links_of(envelope: Envelope, console: str | None) -> tuple[tuple[str, str], ...]:
    """Titles and URLs, the most particular first; none without a console."""
    if console is None:
        return ()
    base, found = console.rstrip("/"), []
    if envelope.type == GroupComposed.TYPE:
        group = envelope.payload(GroupComposed)
        message = delivery_id(group.subscription_id, envelope.id)
        return ((f"All {group.count}", f"{base}/deliveries?in={message}"),)
    request_id = request_of(envelope)
    if request_id is not None:
        found.append(("Open the request", f"{base}/requests/{quote(request_id, safe='')}"))
    try:
        workspace, model, version = parse_subject(envelope.subject)
    except ValueError:
        return tuple(found)
    place = f"{base}/models/{quote(model, safe='')}"
    query = f"?workspace={quote(workspace, safe='')}"
    if version:
        found.append((f"{model} v{version}", f"{place}/versions/{version}{query}"))
    else:
        found.append((model, f"{place}{query}"))
    return tuple(found)
