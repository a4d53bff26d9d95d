"""Who signs checkpoints: this process (`LocalSigner`), or another one that holds the keys (`RemoteSigner`)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.merkle import EMPTY_ROOT, verify_consistency
from audit.note import Checkpoint, MldsaSigner, NoteError, NoteSigner, Signer, parse_vkey, verify_note
from audit.settings import AuditSettings, read_token
from audit.tlog import addition
from audit.tlog.archive import Contradiction
from kit.errors import Transient
from kit.keys import load_key, load_mldsa44

ProofFor = Callable[[int], Awaitable[list[bytes]]]
UNIX = "unix:"
TRIES = 3


class Overtaken(Contradiction):
    """A larger tree, of `size` entries, was signed already. A writer with at least as many entries by now was only
    slow; one with fewer has lost some."""

    def __init__(self, mine: int, size: int) -> None:
        super().__init__(f"the tree has {mine} entries, but {size} were signed before")
        self.size = size


class Behind(Transient):
    """The proof must begin at `size`, which the signer signed last."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the signer has signed {size} entries: the proof must begin there")
        self.size = size


class SignerUnavailable(Transient):
    """The signer's process is away, or answers otherwise than agreed; the text says which."""


@dataclass(frozen=True)
class Head:
    """What was signed last."""

    size: int = 0
    root: bytes = EMPTY_ROOT


def refuse_another_history(last: Head, checkpoint: Checkpoint) -> None:
    """Raises Overtaken for a smaller tree, and Contradiction for a second root of one size."""
    if checkpoint.size < last.size:
        raise Overtaken(checkpoint.size, last.size)
    if checkpoint.size == last.size and checkpoint.root != last.root:
        raise Contradiction(f"another root was signed for {last.size} entries")


def check_extension(last: Head, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> None:
    """Whether the checkpoint extends what was signed last.

    Raises:
        Contradiction: it does not, or the proof does not show it.
        Behind: the proof begins elsewhere.
    """
    refuse_another_history(last, checkpoint)
    if old != last.size:
        raise Behind(last.size)
    if not verify_consistency(last.size, checkpoint.size, last.root, checkpoint.root, proof):
        raise Contradiction(f"the proof does not show that the tree begins with the {last.size} entries signed before")


class CheckpointSigner(Protocol):
    """`name`: the log's origin. `vkeys`: its verifier key lines, in the order of the signature lines."""

    name: str

    @property
    def vkeys(self) -> list[str]:
        """Raises SignerUnavailable until `load` has succeeded once."""

    async def load(self) -> None:
        """Learns the keys, where they are not known yet. Raises SignerUnavailable."""

    async def sign(self, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> str:
        """The signature lines: Ed25519, then ML-DSA-44 where the log has such a key.

        `proof` (RFC 6962) shows that the tree begins with its first `old` entries; it is empty where that is clear.

        Raises:
            Contradiction: the checkpoint does not extend what was signed before.
            Behind: the proof must begin at another size.
            SignerUnavailable: try again.
        """

    async def close(self) -> None: ...


class LocalSigner:
    """Holds the keys itself. It knows what it signed since it was made, and refuses to sign against that."""

    def __init__(self, keys: Sequence[NoteSigner], name: str) -> None:
        self.name = name
        self._keys = keys
        self._last: Head | None = None

    @property
    def vkeys(self) -> list[str]:
        return [key.vkey for key in self._keys]

    async def load(self) -> None:
        """Nothing to do."""

    async def sign(self, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> str:
        if self._last is not None:
            refuse_another_history(self._last, checkpoint)
            if old == self._last.size:  # elsewhere the signer of another process may have gone on
                check_extension(self._last, checkpoint, old, proof)
        lines = "".join(key.line(checkpoint.text()) for key in self._keys)
        self._last = Head(checkpoint.size, checkpoint.root)
        return lines

    async def close(self) -> None:
        """Nothing to do."""


class RemoteSigner:
    """Asks the process `python -m audit sign`, at `unix:/path` or a URL. `seconds`: of one call."""

    def __init__(self, name: str, url: str, token: str | None = None, seconds: float = 10.0) -> None:
        self.name, self._url = name, url
        self._vkeys: list[str] = []
        path = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=path, trust_env=False),
            base_url="http://signer" if path else url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=seconds,
            trust_env=False,
        )

    @property
    def vkeys(self) -> list[str]:
        if not self._vkeys:
            raise SignerUnavailable(f"the signer at {self._url} was not reached yet")
        return list(self._vkeys)

    async def load(self) -> None:
        if not self._vkeys:
            await self._learn()

    async def _learn(self) -> None:
        answer = await self._call("GET", "/vkeys")
        lines = answer.text.splitlines() if answer.status_code == 200 else []
        try:
            names = {parse_vkey(line).name for line in lines}
        except NoteError as error:
            raise SignerUnavailable(f"the signer names a malformed key: {error}") from error
        if names != {self.name}:
            raise SignerUnavailable(f"the signer has no keys for {self.name}: {_said(answer)}")
        self._vkeys = lines

    async def sign(self, checkpoint: Checkpoint, old: int, proof: Sequence[bytes]) -> str:
        await self.load()
        body = addition.write(old, proof, checkpoint.text())
        answer = await self._call("POST", "/add-checkpoint", body)
        if answer.status_code == 200:
            return await self._checked(checkpoint, answer.text)
        if (size := addition.conflict(answer.status_code, _kind(answer), answer.content)) is not None:
            raise Behind(size) if size <= checkpoint.size else Overtaken(checkpoint.size, size)
        if answer.status_code in (409, 422):
            raise Contradiction(f"the signer refuses: {_said(answer)}")
        raise SignerUnavailable(f"the signer does not sign: {_said(answer)}")

    async def close(self) -> None:
        await self._client.aclose()

    async def _checked(self, checkpoint: Checkpoint, lines: str) -> str:
        """The lines, each known to verify. A key that is new to us is learnt once."""
        for again in (False, True):
            if again:
                await self._learn()
            try:
                keys = [parse_vkey(vkey) for vkey in self._vkeys]
                opened = verify_note(f"{checkpoint.text()}\n{lines}", keys)
                return "".join(opened.lines[key.vkey] for key in keys)
            except (NoteError, KeyError):
                continue
        raise SignerUnavailable("the signer's answer is not signed by its keys")

    async def _call(self, method: str, path: str, body: bytes | None = None) -> httpx2.Response:
        try:
            return await self._client.request(method, path, content=body)
        except (httpx2.HTTPError, OSError) as error:
            raise SignerUnavailable(f"the signer at {self._url} is away: {error!r}") from error


async def sign_extension(signer: CheckpointSigner, checkpoint: Checkpoint, old: int, proof_for: ProofFor) -> str:
    """Signs with a proof from `old`, or from wherever the signer says it must begin.

    Raises:
        Contradiction: the checkpoint does not extend what was signed before.
        SignerUnavailable, Behind: try again.
    """
    for tries in range(TRIES):
        try:
            return await signer.sign(checkpoint, old, await proof_for(old))
        except Behind as behind:
            old = behind.size
            if tries == TRIES - 1:
                raise
    raise AssertionError


def keys_of(name: str, key: Path, mldsa_key: Path | None) -> list[NoteSigner]:
    """The log's keys: Ed25519 first. Raises ValueError for a file that holds no such key."""
    private = load_key(key).private_key
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{key} is no private Ed25519 key")
    keys: list[NoteSigner] = [Signer(name, private)]
    if mldsa_key is not None:
        keys.append(MldsaSigner(name, load_mldsa44(mldsa_key)))
    return keys


def signer_of(settings: AuditSettings) -> CheckpointSigner:
    """Raises ValueError for a key or token file that cannot be read."""
    origin = settings.checkpoint_origin
    if settings.checkpoint_signer is not None:
        return RemoteSigner(origin, settings.checkpoint_signer, read_token(settings.checkpoint_signer_token))
    assert settings.checkpoint_key is not None
    return LocalSigner(keys_of(origin, settings.checkpoint_key, settings.checkpoint_mldsa_key), origin)


def _kind(answer: httpx2.Response) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip()


def _said(answer: httpx2.Response) -> str:
    return f"HTTP {answer.status_code} {answer.text[:300]!r}"
