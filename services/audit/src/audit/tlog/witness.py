"""Witnesses cosign a checkpoint after they have checked that the log only grew: C2SP tlog-witness 1.0.0, the client."""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Counter

from audit.note import Checkpoint, NoteError, parse_vkey, read_checkpoint, split_note, verify_note
from audit.settings import AuditSettings
from audit.tlog import addition
from audit.tlog.calling import Answer, Caller, Unanswered
from audit.tlog.signing import ProofFor
from kit.errors import Transient

log = structlog.get_logger()
COSIGNED = Counter("hallmark_audit_cosignatures_total", "What witnesses answered", ["witness", "outcome"])
TRIES = 3
LONGEST_REST = 30.0


class WitnessError(Transient):
    """The witness did not cosign; the text says why. `outcome` is for the metric."""

    outcome = "refused"


class WitnessAway(WitnessError):
    outcome = "away"


class SplitView(WitnessError):
    """The witness knows another history of the log than ours: somebody must find out why."""

    outcome = "split"


class Ahead(WitnessError):
    """The witness has cosigned a larger tree: another process was faster, or our database has lost entries."""

    outcome = "ahead"


class NoQuorum(Transient):
    """Too few witnesses cosigned; the checkpoint must not be published yet."""


class Witness:
    """`vkey` is its verifier key line, `url` its submission prefix."""

    def __init__(self, url: str, vkey: str, caller: Caller) -> None:
        self._verifier = parse_vkey(vkey)
        self.name = self._verifier.name
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self._caller = caller
        self._size = 0  # what it cosigned last, as far as we know

    def has_cosigned(self, note: str) -> bool:
        try:
            verify_note(note, [self._verifier])
        except NoteError:
            return False
        return True

    async def cosign(self, note: str, proof_for: ProofFor) -> str:
        """The verified signature line of this witness for the checkpoint of the note.

        `proof_for(old)` gives the RFC 6962 consistency proof from size `old` to the checkpoint's.

        Raises:
            SplitView: it has seen another tree.
            Ahead: it has seen a larger one.
            WitnessAway: it was not reached.
            WitnessError: it refuses for another reason, or its signature does not verify.
        """
        text, _ = split_note(note)
        checkpoint = read_checkpoint(text)
        old = min(self._size, checkpoint.size)
        for _ in range(TRIES):
            proof = await proof_for(old) if 0 < old < checkpoint.size else []
            try:
                answer = await self._caller.post(self._url, addition.write(old, proof, note), "text/plain")
            except Unanswered as error:
                raise WitnessAway(str(error)) from error
            size = addition.conflict(answer.status, answer.kind, answer.body)
            if size is None or (size == old and size == checkpoint.size):
                line = self._line(text, checkpoint, answer)
                self._size = checkpoint.size
                return line
            if size > checkpoint.size:
                self._size = size
                raise Ahead(f"it has cosigned {size} entries, more than the {checkpoint.size} of the checkpoint")
            old = size
        raise WitnessError("somebody else adds checkpoints all the time")

    def _line(self, text: str, checkpoint: Checkpoint, answer: Answer) -> str:
        if answer.status == 200:
            try:
                opened = verify_note(f"{text}\n{answer.body.decode()}", [self._verifier])
            except (NoteError, UnicodeDecodeError) as error:
                raise WitnessError(f"its answer is no cosignature: {error}") from error
            return opened.lines[self._verifier.vkey]
        if answer.status in (409, 422):
            raise SplitView(f"it has seen another tree than ours of {checkpoint.size} entries: {answer.said}")
        if answer.status >= 500 or answer.status in (408, 425, 429):
            raise WitnessAway(answer.said)
        raise WitnessError(answer.said)


class Witnesses:
    """All of a log's witnesses. With a quorum of 0 a checkpoint goes out with the cosignatures that there are.

    One that is away is asked again after a rest, each longer than the one before, so that it does not hold up the log.
    """

    def __init__(
        self,
        witnesses: Sequence[Witness],
        quorum: int,
        caller: Caller,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._witnesses, self._quorum, self._caller, self._clock = witnesses, quorum, caller, clock
        self._rests: dict[Witness, tuple[float, float]] = {}  # until when, and how long

    async def cosign(self, note: str, proof_for: ProofFor) -> str:
        """The note with one line more for each witness that cosigned it and is not in it yet.

        Raises:
            NoQuorum: too few did.
        """
        missing = [witness for witness in self._witnesses if not witness.has_cosigned(note)]
        lines = await asyncio.gather(*(self._ask(witness, note, proof_for) for witness in missing))
        unsigned = {witness.name for witness, line in zip(missing, lines, strict=True) if not line}
        names = {witness.name for witness in self._witnesses}
        if len(names - unsigned) < self._quorum:
            raise NoQuorum(
                f"{len(names - unsigned)} of {self._quorum} witnesses cosigned; not {', '.join(sorted(unsigned))}"
            )
        return note + "".join(lines)

    async def close(self) -> None:
        await self._caller.close()

    async def _ask(self, witness: Witness, note: str, proof_for: ProofFor) -> str:
        """The line, or nothing."""
        until, rest = self._rests.get(witness, (0.0, 0.5))
        if self._clock() < until:
            return ""
        try:
            line = await witness.cosign(note, proof_for)
        except WitnessError as error:
            COSIGNED.labels(witness.name, error.outcome).inc()
            tell = {SplitView: log.critical, Ahead: log.error}.get(type(error), log.warning)
            tell("a witness did not cosign", witness=witness.name, outcome=error.outcome, error=str(error))
            rest = min(2 * rest, LONGEST_REST)
            self._rests[witness] = (self._clock() + rest, rest)
            return ""
        COSIGNED.labels(witness.name, "cosigned").inc()
        self._rests.pop(witness, None)
        return line


def witnesses_of(settings: AuditSettings) -> Witnesses:
    caller = Caller(settings.attestation_allow, settings.witness_seconds)
    found = [Witness(given.url, given.vkey, caller) for given in settings.witnesses]
    return Witnesses(found, settings.witness_quorum, caller)
