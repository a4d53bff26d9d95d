"""Opening a model by what it is: ONNX, skops, safetensors; a pickle only for who asks for it, after a clean scan."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hallmark.client import Client
from hallmark.errors import HallmarkError
from hallmark.results import Pin

PICKLES = (".pkl", ".pickle", ".joblib")


def load(
    model: str,
    *,
    stage: str = "Production",
    alias: str | None = None,
    version: int | None = None,
    client: Client | None = None,
    allow_pickle: bool = False,
    trusted: tuple[str, ...] = (),
) -> Any:
    """Downloads what a stage, an alias or a number names (in parallel, verified, cached by digest) and opens it.

    `.onnx`: an onnxruntime.InferenceSession; `.skops`: the estimator; `.safetensors`: names to arrays (torch tensors
    where torch is loaded); everything else, and every directory: its path. Pickles (`.pkl`, `.joblib`) run code when
    they are opened: only with `allow_pickle`, and only where the registry's scan found nothing. `trusted` names the
    types of a skops file that are not known to be harmless.

    >>> session = hallmark.load("fraud", alias="champion")

    Raises:
        HallmarkError: code `pickle-not-allowed`, `pickle-not-clean`, `untrusted-types`, `missing-package`,
            `invalid-artifact`, or one of `resolve` and `download`.
    """
    with Own(client) as hallmark:
        pin = hallmark.resolve(model, stage=stage, alias=alias, version=version)
        kind = Path(pin.artifact.filename).suffix.lower()
        if kind in PICKLES and not pin.artifact.files:
            _consider(hallmark, pin, allow_pickle)
        path = hallmark.download(pin)
    if pin.artifact.files:
        return path
    openers: dict[str, Callable[[Path], Any]] = {
        ".onnx": _onnx,
        ".skops": lambda path: _skops(path, trusted),
        ".safetensors": _safetensors,
        ".joblib": _joblib,
        **dict.fromkeys((".pkl", ".pickle"), _pickle),
    }
    if kind not in openers:
        return path
    try:
        return openers[kind](path)
    except ImportError as error:
        raise HallmarkError("missing-package", f"opening {kind} needs a package: pip install {error.name}") from error
    except HallmarkError:
        raise
    except Exception as error:  # the formats' errors have no common base
        raise HallmarkError("invalid-artifact", f"{pin.artifact.filename} cannot be opened: {error}") from error


class Own:
    """The client given, left open; or one of our own, closed."""

    def __init__(self, given: Client | None) -> None:
        self._given = given
        self._client = given or Client()

    def __enter__(self) -> Client:
        return self._client

    def __exit__(self, *_: object) -> None:
        if self._given is None:
            self._client.close()


def _consider(hallmark: Client, pin: Pin, allowed: bool) -> None:
    name = pin.artifact.filename
    if not allowed:
        raise HallmarkError(
            "pickle-not-allowed",
            f"{name} is a pickle: whoever made it runs code here. load(..., allow_pickle=True) if you trust them; "
            "better register ONNX, skops or safetensors",
        )
    inspection = hallmark.version(pin.model, pin.version).inspection or {}
    findings = [f for f in inspection.get("findings", []) if f["severity"] != "info"]
    if findings or not inspection:
        told = "; ".join(f"{f['code']}: {f['detail']}" for f in findings) or "it was not scanned"
        raise HallmarkError("pickle-not-clean", f"{name} is not opened, whoever allows it: {told}")


def _onnx(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _skops(path: Path, trusted: tuple[str, ...]) -> Any:
    from skops.io import get_untrusted_types, load

    unknown = sorted(set(get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        raise HallmarkError(
            "untrusted-types", f"the file has types that may run code: {', '.join(unknown)}; name them in `trusted`"
        )
    return load(path, trusted=list(trusted))


def _safetensors(path: Path) -> Any:
    import sys

    if "torch" in sys.modules:
        from safetensors.torch import load_file as load_torch

        return load_torch(path)
    from safetensors.numpy import load_file

    return load_file(path)


def _joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _pickle(path: Path) -> Any:
    import pickle

    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301  # allowed by the caller, scanned by the registry
