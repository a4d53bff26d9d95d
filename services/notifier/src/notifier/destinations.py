"""Whether deliveries can be sent somewhere, told when a subscription is made."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from contracts.notifier import Channel, Format
from contracts.webhooks import key_of
from kit.outbound import AddressRefused, Guard
from kit.problems import Problem
from notifier.addresses import check_mailbox, is_slack_channel, visible
from notifier.channels.formats import PLAIN_SECRETS, TYPES
from notifier.channels.others import check_apprise
from notifier.domain import unknown_types

ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
MIN_SECRET = 16


@dataclass
class Destinations:
    """`mail`: a mail server is set; `slack_bot`: a bot is. `apprise_schemes`: those of Apprise that the operator
    allows."""

    guard: Guard
    mail: bool
    apprise_schemes: tuple[str, ...] = ()
    slack_bot: bool = False

    async def check(self, channel: Channel, address: str, secret: str | None, format_: Format) -> None:
        """Raises Problem 422 with what is wrong with the address, the secret or the format."""
        if format_ is not Format.CLOUDEVENTS and channel is not Channel.WEBHOOK:
            raise Problem(422, "format-not-used", f"{channel} has a format of its own; leave 'format' out")
        if secret is not None and channel is not Channel.WEBHOOK:
            raise Problem(422, "secret-not-used", f"{channel} deliveries are not signed; leave 'secret' out")
        try:
            await self._check_address(channel, address)
        except AddressRefused as error:
            raise Problem(422, "address-refused", str(error)) from error
        if channel is Channel.EMAIL and not self.mail:
            raise Problem(422, "mail-not-set-up", "this Hallmark sends no mail; the operator sets HALLMARK_SMTP_HOST")
        try:
            _check_secret(secret, format_) if secret is not None else None
        except ValueError as error:
            raise Problem(422, "secret-refused", str(error)) from error

    async def _check_address(self, channel: Channel, address: str) -> None:
        match channel:
            case Channel.EMAIL:
                check_mailbox(address)
            case Channel.PAGERDUTY:
                if not ROUTING_KEY.fullmatch(address):
                    raise AddressRefused("the address is the integration (routing) key: 32 letters and digits")
            case Channel.SLACK if is_slack_channel(address):
                if not self.slack_bot:
                    raise AddressRefused("channels need a bot: the operator sets HALLMARK_SLACK_BOT_TOKEN")
            case Channel.APPRISE:
                check_apprise(address, self.apprise_schemes)
            case _:
                await self.guard.check_url(address)


def shown(channel: Channel, address: str) -> str:
    """What people may see of an address that is a secret."""
    match channel:
        case Channel.PAGERDUTY:
            return f"pagerduty:****{address[-4:]}"
        case Channel.APPRISE:  # anything after the scheme may be the token
            return f"{address.partition('://')[0]}://****"
    return visible(address)


def types_in(format_: Format, types: tuple[str, ...]) -> tuple[str, ...]:
    """The types that these patterns mean in a format that has a message for some types only; without patterns, all
    that it has.

    Raises:
        Problem: 422, a pattern means none of those that it has.
    """
    known = TYPES.get(format_)
    if known is None:
        return types
    if strange := unknown_types(types, known):
        has = ", ".join(sorted(known))
        raise Problem(422, "type-not-in-format", f"{format_} has no message for {', '.join(strange)}; it has: {has}")
    return tuple(sorted(n for n in known if not types or any(fnmatchcase(n, pattern) for pattern in types)))


def _check_secret(secret: str, format_: Format) -> None:
    if format_ not in PLAIN_SECRETS:
        key_of(secret)
    elif len(secret) < MIN_SECRET or not secret.isascii() or not secret.isprintable():
        raise ValueError(f"a secret of {format_} webhooks is {MIN_SECRET} or more printable ASCII characters")
