"""What addresses of receivers look like, and what of them people may see."""

import re
from email.utils import parseaddr
from urllib.parse import parse_qsl, unquote, urlsplit

from kit.outbound import AddressRefused

MIN_PASSWORD = 8
_SLACK_CHANNEL = re.compile(r"#[^\s#@,:<>|&/]{1,80}|[CGD][A-Z0-9]{8,20}")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?")


def check_mailbox(address: str) -> None:
    """Raises AddressRefused unless it is one plain mailbox."""
    if not _MAILBOX.fullmatch(address) or parseaddr(address)[1] != address or ".." in address:
        raise AddressRefused(f"{address!r} is not an e-mail address like ana@example.org")


def visible(url: str) -> str:
    """What people may see of a URL: where it leads. Of many receivers the path or the query is the password. Of a
    mailbox they see the domain."""
    parts = urlsplit(url)
    if not parts.scheme:
        return f"****@{url.rpartition('@')[2]}"[:500]
    return f"{parts.scheme}://{parts.netloc}/****"[:500]


def hidden(url: str) -> set[str]:
    """What of a URL no text may repeat: its path and query, and each step or value long enough to be a password."""
    parts = urlsplit(url)
    steps = (*parts.path.split("/"), parts.path.strip("/"), *(value for _, value in parse_qsl(parts.query)))
    found = {url, parts.path, parts.query, f"{parts.path}?{parts.query}", *(s for s in steps if len(s) >= MIN_PASSWORD)}
    return {text for part in found for text in (part, unquote(part)) if text.strip("/?")}


def is_slack_channel(address: str) -> bool:
    """`#models`, or the id of a channel: no URL of a webhook."""
    return _SLACK_CHANNEL.fullmatch(address) is not None
