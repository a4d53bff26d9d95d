"""Whatever Apprise knows (Telegram, Discord, Matrix, ntfy, ...), by its URLs: `notifier[apprise]`.

Our queue does the retrying. Apprise opens its connections itself, past the guard of addresses (`kit.outbound`), so the
operator names the schemes that may be used: those whose host their address does not choose.
"""

import asyncio
from types import ModuleType
from typing import Any

from kit.outbound import AddressRefused
from notifier.channels import Parcel
from notifier.notices import one_line
from notifier.retrying import Outcome, Verdict
from notifier.wording import notice

MISSING = "Apprise is not installed with this notifier: pip install 'hallmark-service-notifier[apprise]'"


def library() -> ModuleType | None:
    try:
        import apprise
    except ImportError:
        return None
    module: ModuleType = apprise
    return module


def check_apprise(address: str, schemes: tuple[str, ...]) -> None:
    """Raises AddressRefused for a URL that deliveries would not be sent to."""
    scheme = address.partition("://")[0].lower()
    if scheme not in schemes:
        allowed = ", ".join(schemes) or "none"
        raise AddressRefused(f"of Apprise's schemes the operator allows {allowed} (HALLMARK_APPRISE_SCHEMES)")
    apprise = library()
    if apprise is None:
        raise AddressRefused(MISSING)
    if apprise.Apprise.instantiate(address, suppress_exceptions=True) is None:
        raise AddressRefused(f"Apprise cannot read the address; its documentation says how {scheme}:// ones look")


class AppriseSender:
    def __init__(self, schemes: tuple[str, ...], *, timeout: float = 15) -> None:
        self._schemes, self._timeout = schemes, timeout

    async def send(self, parcel: Parcel) -> Outcome:
        apprise = library()
        if apprise is None:
            return Outcome(Verdict.RETRY, MISSING, ours=True)
        if parcel.address.partition("://")[0].lower() not in self._schemes:
            return Outcome(
                Verdict.RETRY, "the operator allows this scheme no more (HALLMARK_APPRISE_SCHEMES)", ours=True
            )
        words, sender = notice(parcel.envelope), apprise.Apprise()
        sender.add(parcel.address)
        title = one_line(parcel.worded.get("subject") or words.headline)
        said: dict[str, Any] = {"title": title, "body": parcel.worded.get("text") or words.summary}
        try:
            async with asyncio.timeout(self._timeout):
                taken = await sender.async_notify(**said, body_format=apprise.NotifyFormat.TEXT)
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"no answer within {self._timeout:g} s")
        if taken:
            return Outcome(Verdict.SUCCEEDED, "accepted by Apprise")
        return Outcome(Verdict.RETRY, "the service did not take it; Apprise says no more")
