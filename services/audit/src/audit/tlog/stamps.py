"""RFC 3161 time stamps: an authority outside of the log says that a checkpoint existed at a time.

What is stamped is the SHA-256 of the whole note, signatures included. The token is the DER of a TimeStampToken:
`openssl ts -verify -token_in -in TOKEN -data NOTE -CAfile ROOTS` checks it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from cryptography import x509
from prometheus_client import Counter
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from audit.settings import AuditSettings
from audit.tlog.calling import Caller, Unanswered
from kit.errors import Transient

log = structlog.get_logger()
STAMPED = Counter("hallmark_audit_stamps_total", "What the time stamping authority answered", ["outcome"])
AGAIN_SECONDS = 60.0  # after a failure


class StampError(Transient):
    """The authority gave no time stamp, or one that does not verify; the text says which."""


@dataclass(frozen=True)
class Authority:
    """Certificates that time stamps are believed from: roots sign themselves, the others are between."""

    roots: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, pem: bytes) -> "Authority":
        """Raises ValueError when there is no root among the certificates."""
        found = x509.load_pem_x509_certificates(pem)
        roots = tuple(c for c in found if c.subject == c.issuer)
        if not roots:
            raise ValueError("the certificates of the time stamping authority hold no root")
        return cls(roots, tuple(c for c in found if c not in roots))

    def check(self, response: TimeStampResponse, note: str, nonce: int | None = None) -> datetime:
        """The time of the stamp of a note. Raises StampError."""
        verifier = VerifierBuilder(roots=list(self.roots), intermediates=list(self.others), nonce=nonce).build()
        try:
            verifier.verify_message(response, note.encode())
        except (VerificationError, ValueError) as error:
            raise StampError(f"the time stamp does not verify: {error}") from error
        return response.tst_info.gen_time


def read_stamp(token: bytes, note: str, authority: Authority) -> datetime:
    """The time at which the authority saw the note.

    Raises:
        StampError: the token is malformed, of another note, or not signed under the authority's certificates.
    """
    granted = b"\x30\x03\x02\x01\x00" + token  # PKIStatusInfo of RFC 3161 with the status 0
    length = len(granted).to_bytes((len(granted).bit_length() + 7) // 8, "big")
    head = bytes([0x30, 0x80 | len(length)]) + length if len(granted) > 127 else bytes([0x30, len(granted)])
    return authority.check(_decoded(head + granted), note)


class Stamper:
    """Asks one authority, at most once in `every` seconds. Without one it stamps nothing."""

    def __init__(
        self,
        url: str | None,
        authority: Authority | None,
        caller: Caller,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._authority, self._caller = url, authority, caller
        self._every, self._clock = every, clock
        self._due = -math.inf

    async def stamp(self, note: str) -> bytes | None:
        """The token, or None when none is due, or the authority fails: that is logged, and tried again soon."""
        if self._url is None or self._clock() < self._due:
            return None
        try:
            token = await self.request(note)
        except StampError as error:
            STAMPED.labels("failed").inc()
            log.warning("no time stamp", error=str(error))
            self._due = self._clock() + min(self._every, AGAIN_SECONDS)
            return None
        STAMPED.labels("stamped").inc()
        self._due = self._clock() + self._every
        return token

    async def request(self, note: str) -> bytes:
        """A token at once. Raises StampError."""
        if self._url is None or self._authority is None:
            raise StampError("there is no time stamping authority")
        request = TimestampRequestBuilder().data(note.encode()).hash_algorithm(HashAlgorithm.SHA256).build()
        try:
            answer = await self._caller.post(self._url, request.as_bytes(), "application/timestamp-query")
        except Unanswered as error:
            raise StampError(str(error)) from error
        if answer.status != 200 or answer.kind != "application/timestamp-reply":
            raise StampError(f"the authority refuses: {answer.said}")
        response = _decoded(answer.body)
        self._authority.check(response, note, request.nonce)
        return response.time_stamp_token()

    async def close(self) -> None:
        await self._caller.close()


def stamper_of(settings: AuditSettings) -> Stamper:
    """Raises ValueError when the authority's certificates cannot be read."""
    authority = None
    if settings.tsa_url is not None and settings.tsa_certificates is not None:
        try:
            authority = Authority.read(settings.tsa_certificates.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read {settings.tsa_certificates}: {error}") from error
    return Stamper(
        settings.tsa_url, authority, Caller(settings.attestation_allow, settings.tsa_seconds), settings.tsa_every
    )


def _decoded(reply: bytes) -> TimeStampResponse:
    try:
        return decode_timestamp_response(reply)
    except ValueError as error:
        raise StampError(f"the time stamp is malformed: {error}") from error
