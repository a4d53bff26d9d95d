"""E-mail: text and HTML, one thread per request, the same Message-ID on every try, and a way to end it in each."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

import aiosmtplib

from contracts.envelope import now
from notifier.channels import Parcel
from notifier.channels.render import Renderer, clipped
from notifier.notices import one_line
from notifier.requests import request_of
from notifier.retrying import Outcome, Verdict, redact
from notifier.wording import notice

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
SUBJECT = 180


@dataclass(frozen=True)
class Smtp:
    """The server that takes mail for us. `tls` means from the first byte; else STARTTLS where it is offered."""

    host: str
    port: int
    sender: str
    username: str | None = None
    password: str | None = None
    tls: bool = False


class EmailSender:
    """`url` is this service's, as readers of mail reach it: unsubscribing leads there."""

    def __init__(self, smtp: Smtp | None, renderer: Renderer, *, url: str = "", timeout: float = 15) -> None:
        self._smtp, self._renderer, self._url, self._timeout = smtp, renderer, url.rstrip("/"), timeout

    def message(self, parcel: Parcel, sender: str) -> EmailMessage:
        envelope, words = parcel.envelope, notice(parcel.envelope)
        message = EmailMessage(policy=SMTP)
        message["From"] = sender
        message["To"] = parcel.address
        message["Subject"] = clipped(one_line(parcel.worded.get("subject") or words.headline), SUBJECT)
        message["Date"] = format_datetime(now())
        message["Message-ID"] = f"<{parcel.delivery_id}@hallmark>"
        message["In-Reply-To"] = message["References"] = (
            f"<{_thread(request_of(envelope) or envelope.correlationid)}@hallmark>"
        )
        message["Auto-Submitted"] = "auto-generated"
        end = unsubscribe_url(self._url, parcel)
        if end:  # RFC 2369, and RFC 8058: programs end it by a POST, so that no scanner does by following links
            message["List-Unsubscribe"] = f"<{end}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        if parcel.worded:
            message.set_content(parcel.worded["text"])
            if "html" in parcel.worded:
                message.add_alternative(parcel.worded["html"], subtype="html")
            return message
        message.set_content(self._renderer.text(words, envelope, end))
        message.add_alternative(self._renderer.html(words, envelope, end), subtype="html")
        return message

    def question(
        self, address: str, sender: str, link: str, identity: str, owner: str, workspace: str, expires_at: datetime
    ) -> EmailMessage:
        """Asks whoever reads a mailbox whether they want the mail. It has nothing else in it."""
        message = EmailMessage(policy=SMTP)
        message["From"] = sender
        message["To"] = address
        message["Subject"] = "Should Hallmark send mail to this address?"
        message["Date"] = format_datetime(now())
        message["Message-ID"] = f"<{identity}@hallmark>"
        message["Auto-Submitted"] = "auto-generated"
        until = f"{expires_at:%Y-%m-%d %H:%M} UTC"
        message.set_content(self._renderer.question(owner=one_line(owner), workspace=workspace, link=link, until=until))
        return message

    async def ask(
        self,
        address: str,
        subscription_id: str,
        token: str,
        identity: str,
        *,
        owner: str,
        workspace: str,
        expires_at: datetime,
    ) -> Outcome:
        """Mails the link by which whoever reads the mailbox confirms a subscription."""
        link = f"{self._url}/v1/confirm/{subscription_id}/{token}"
        return await self._hand_over(
            address,
            lambda sender: self.question(address, sender, link, identity, owner, workspace, expires_at),
            (token,),
        )

    async def send(self, parcel: Parcel) -> Outcome:
        hidden = (parcel.unsubscribe,) if parcel.unsubscribe else ()
        return await self._hand_over(parcel.address, lambda sender: self.message(parcel, sender), hidden)

    async def _hand_over(
        self, address: str, message: Callable[[str], EmailMessage], hidden: tuple[str, ...]
    ) -> Outcome:
        """To the mail server; `message` is of a sender."""
        smtp = self._smtp
        if smtp is None:
            return Outcome(Verdict.RETRY, "no mail server is set: HALLMARK_SMTP_HOST", ours=True)
        hidden = (*hidden, *(s for s in (smtp.password, address) if s))  # servers like to repeat the address
        try:
            # The library's own limit is per step of the conversation.
            async with asyncio.timeout(self._timeout):
                _, answer = await aiosmtplib.send(
                    message(smtp.sender),
                    sender=parseaddr(smtp.sender)[1],
                    recipients=[address],
                    hostname=smtp.host,
                    port=smtp.port,
                    username=smtp.username,
                    password=smtp.password,
                    use_tls=smtp.tls,
                    timeout=self._timeout,
                )
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"the mail server did not answer within {self._timeout:g} s")
        except (aiosmtplib.SMTPException, OSError) as error:
            return _refusal(error, hidden)
        return Outcome(Verdict.SUCCEEDED, "accepted by the mail server", status=250, response=redact(answer, hidden))


def unsubscribe_url(url: str, parcel: Parcel) -> str | None:
    return f"{url}/v1/unsubscribe/{parcel.subscription_id}/{parcel.unsubscribe}" if parcel.unsubscribe else None


def _refusal(error: Exception, hidden: tuple[str, ...]) -> Outcome:
    """4xx and a server that is away: again. 5xx about this mail: never again. 5xx about us (login, greeting): again,
    since an operator can mend it."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if not isinstance(error, aiosmtplib.SMTPResponseException):
        return Outcome(Verdict.RETRY, redact(f"{type(error).__name__}: {error}", hidden, 500))
    text = redact(f"{error.code} {one_line(error.message)}", hidden)
    about_mail = isinstance(
        error, (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError)
    )
    verdict = Verdict.REFUSED if about_mail and 500 <= error.code < 600 else Verdict.RETRY
    return Outcome(verdict, text[:500], status=error.code, response=text)


def _thread(correlation: str) -> str:
    """An id as part of a Message-ID; producers choose correlation ids, so odd ones are hashed."""
    return correlation if _ID.fullmatch(correlation) else hashlib.sha256(correlation.encode()).hexdigest()[:32]
