"""Who signs checkpoints."""

from typing import Protocol

from audit.note import Checkpoint, Signer


class CheckpointSigner(Protocol):
    name: str

    @property
    def vkeys(self) -> list[str]: ...

    async def sign(self, checkpoint: Checkpoint, old: int, proof: list[bytes]) -> str: ...


class LocalSigner:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.name = signer.name

    @property
    def vkeys(self) -> list[str]:
        return [self._signer.vkey]

    async def sign(self, checkpoint: Checkpoint, old: int, proof: list[bytes]) -> str:
        return self._signer.line(checkpoint.text())
