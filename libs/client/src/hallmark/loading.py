"""From a pin to a model that is ready to predict: only what was signed, the right bytes, and what passes its test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hallmark.client import Client
from hallmark.download import obtain, seed
from hallmark.errors import HallmarkError, VersionRevoked
from hallmark.pins import Keys, verify, verify_revocation
from hallmark.results import Pin

M = TypeVar("M")


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A model ready to predict, and the pin it came from."""

    model: M
    pin: Pin
    path: Path

    @property
    def version(self) -> int:
        return self.pin.version


class Loader(Generic[M]):
    """Of one target of one model. `load` opens the verified file; `self_test` raises to refuse the model."""

    def __init__(
        self,
        client: Client,
        model: str,
        target: str,
        load: Callable[[Path], M],
        *,
        self_test: Callable[[M], object] | None,
        pin_keys: Keys | None,
        directory: Path,
    ) -> None:
        self._client = client
        self._name = model
        self._target = target
        self._load = load
        self._self_test = self_test
        self._pin_keys = pin_keys
        self._directory = directory

    @property
    def signed_only(self) -> bool:
        return self._pin_keys is not None

    def fetch(self, pin: Pin, source: Path | None = None) -> Path:
        """The verified bytes, on the disk; from `source`, a directory that `export` made, where they are there.

        Raises:
            HallmarkError: the pin is not signed by who should, or as `obtain`.
        """
        self._verify(pin)
        if source is not None:
            seed(self._directory, source, pin)
        # What is cached is hashed again, because disks lie too.
        return obtain(self._client.http, pin, self._directory)

    def open(self, pin: Pin, path: Path) -> Loaded[M]:
        """Raises whatever `load` and `self_test` raise."""
        model = self._load(path)
        if self._self_test is not None:
            self._self_test(model)
        return Loaded(model, pin, path)

    def believe(self, revoked: VersionRevoked) -> None:
        """Raises HallmarkError unless the registry signed the revocation, where keys are given."""
        if self._pin_keys is None:
            return
        signed = str(revoked.extra.get("signed") or "")
        workspace = self._client.workspace
        verify_revocation(signed, self._pin_keys, workspace=workspace, model=revoked.model, version=revoked.version)

    def _verify(self, pin: Pin) -> None:
        """Raises HallmarkError unless the registry's signature says the same as the answer, where keys are given."""
        if self._pin_keys is None:
            return
        claims = verify(
            pin.pin or "", self._pin_keys, workspace=self._client.workspace, model=self._name, target=self._target
        )
        if (claims.version, claims.digest, claims.artifact_digest, claims.sequence, claims.epoch) != (
            pin.version,
            pin.digest,
            pin.artifact.digest,
            pin.sequence,
            pin.epoch,
        ):
            raise HallmarkError("pin-mismatch", f"the pin is for version {claims.version}, the answer says otherwise")
