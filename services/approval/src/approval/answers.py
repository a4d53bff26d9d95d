"""What external checks say of a request, as the answer to a call or posted later: recorded under the request's lock."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from approval.desk import SYSTEM, Desk, Open
from approval.domain import Request
from approval.people import over, refused
from contracts.approval import Answer, GateAnswered
from contracts.webhooks import Unsigned
from kit.problems import Problem
from kit.webhooks import verify

FINAL = ("pass", "fail")
MAX_ANSWER = 64 << 10  # bytes
MAX_ANSWERS = 100  # to one question


@dataclass(frozen=True)
class Said:
    """One answer. `error` is this service's own word, for a check that did not answer as it should."""

    result: Answer
    message: str = ""
    evidence: str | None = None


@dataclass(frozen=True)
class Asked:
    """Which question an answer is to: a gate of a request, as it was bound then. `bound_at`: since when; None where the
    answer does not tell, since it was posted."""

    request_id: str
    gate: str
    request_digest: str
    bound_at: datetime | None = None


class Answers:
    """`secrets`: by the names that policies call them."""

    def __init__(self, desk: Desk, secrets: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._desk, self._secrets, self._clock = desk, secrets, clock

    def signers(self, headers: Mapping[str, str], body: bytes) -> frozenset[str]:
        """The names of the secrets that a posted answer is signed with.

        Raises:
            Problem: 401, with none, or not now.
        """
        found, why = set(), "this Hallmark has no secrets of gates"
        for name, secret in self._secrets.items():
            try:
                verify(secret, headers, body, self._clock())
                found.add(name)
            except Unsigned as error:
                why = str(error)
        if not found:
            raise Problem(401, "bad-signature", f"sign the answer as a Standard Webhooks message: {why}")
        return frozenset(found)

    async def record(self, asked: Asked, said: Said, signers: Collection[str] | None = None) -> Request:
        """Records an answer and moves the request on. The same again does nothing. `signers`: the secrets it was signed
        with; None when it is the answer to our own call.

        A pass and a fail are final for that question, so that an older message that is sent again changes nothing. Only
        when the request has changed and changed back since is that question put anew, byte for byte: what a check posts
        late to the first one then answers the second, for it is said of the same.

        Raises:
            Problem: 403, signed with another gate's secret; 404, no such request or webhook gate; 409, the request is
                another one by now, is decided, or the gate has answered otherwise.
        """
        async with self._desk.opened(asked.request_id) as of:
            await self._desk.advance(of)
            problem = await self._take(of, asked, said, signers)
        if problem is not None:
            raise problem
        return of.request

    async def _take(self, of: Open, asked: Asked, said: Said, signers: Collection[str] | None) -> Problem | None:
        """Does not raise: what the request has become meanwhile is to be kept."""
        if asked.request_digest != of.request.request_digest or asked.bound_at not in (None, of.request.bound_at):
            return Problem(409, "request-changed", "the request has changed since it was asked about; it asks anew")
        sight = await self._desk.sights.of(of.tx, of.request, of.at)
        gate = sight.needs.gate(asked.gate)
        if gate is None or gate.spec.webhook is None:
            return Problem(404, "gate-not-found", f"the request has no webhook gate {asked.gate}")
        secret = gate.spec.webhook.secret
        if signers is not None and secret not in signers:
            return Problem(403, "wrong-secret", f"{asked.gate} answers with the secret {secret}")
        before = _before(of.request, asked)
        if before != said:
            if ended := over(of.request):
                return refused(ended)
            final = before is not None and before.result in FINAL
            if final or len(_answers(of.request, asked)) >= MAX_ANSWERS:
                return Problem(409, "gate-answered", f"{asked.gate} has answered; that is final")
            await self._append(of, asked, said, SYSTEM if said.result == "error" else f"webhook:{secret}")
        return None

    async def _append(self, of: Open, asked: Asked, said: Said, by: str) -> None:
        message = GateAnswered(
            request_id=asked.request_id,
            gate=asked.gate,
            result=said.result,
            message=said.message,
            evidence=said.evidence,
            by=by,
            request_digest=asked.request_digest,
        )
        await self._desk.append(of, message, cause=replace(of.cause, actor=by))
        await self._desk.advance(of)


def _answers(request: Request, asked: Asked) -> list[GateAnswered]:
    return [answer for answer in request.answers if answer.gate == asked.gate]


def _before(request: Request, asked: Asked) -> Said | None:
    """What was answered to the same question last."""
    known = _answers(request, asked)
    return Said(known[-1].result, known[-1].message, known[-1].evidence) if known else None
