"""What reproducing a model needs, read from the running process: git, Python, packages, hardware, data digests."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from contracts.model import Column, Dataset, Environment, Lineage, Pointer, Signature
from hallmark.artifacts import sha256_file
from hallmark.errors import HallmarkError

DatasetLike = Dataset | Mapping[str, object] | str | Path
MAX_LINE = 500


def lineage(datasets: Iterable[Dataset] = (), directory: Path | None = None) -> Lineage:
    """The git state of `directory` (default: the working directory), the command line, and the data sets given."""
    repository, commit, dirty = git(directory or Path.cwd())
    return Lineage(
        git_repository=repository,
        git_commit=commit,
        git_dirty=dirty,
        command=shlex.join(sys.argv)[:10_000] or None,
        datasets=tuple(datasets),
    )


def git(directory: Path) -> tuple[str | None, str | None, bool | None]:
    """(remote or root, commit, dirty), or three Nones outside a repository or without git."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                ["git", "-C", str(directory), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None, None, None
    status = ask("status", "--porcelain")
    remote = ask("config", "--get", "remote.origin.url")
    root = Path(ask("rev-parse", "--show-toplevel") or directory).name
    return without_password(remote or root)[:MAX_LINE], commit, None if status is None else bool(status)


def without_password(remote: str) -> str:
    """A remote's address without user and password: it is about to become a public, permanent record."""
    parts = urlsplit(remote)
    if not parts.scheme or "@" not in parts.netloc:
        return remote
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def environment() -> Environment:
    """Python, platform, hardware, and the installed distributions that this process has imported."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform()[:MAX_LINE],
        packages=packages(),
        hardware=hardware(),
    )


def packages() -> dict[str, str]:
    """Distribution -> version, for what was imported so far."""
    imported = {name.partition(".")[0] for name in list(sys.modules)}
    found: dict[str, str] = {}
    for module, distributions in metadata.packages_distributions().items():
        if module in imported:
            for distribution in distributions:
                found[distribution.lower()] = metadata.version(distribution)
    return dict(sorted(found.items()))


def hardware() -> dict[str, str]:
    """Processor, cores, memory, and the GPU where torch is loaded and sees one."""
    found = {"machine": platform.machine() or "unknown", "cores": str(os.cpu_count() or 0)}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = str(torch.cuda.get_device_name())[:MAX_LINE]
        found["gpu_count"] = str(torch.cuda.device_count())
    return found


def datasets(given: Iterable[DatasetLike]) -> tuple[Dataset, ...]:
    """Each is a `Dataset`, its fields, a path whose content is hashed, or a pointer of DVC: a `.dvc` file, or a
    `dvc.lock`, of which every input that no stage makes counts.

    Raises:
        HallmarkError: code `invalid-dataset`; the path does not exist, or is no pointer though its name says so.
    """
    return tuple(found for one in given for found in _datasets(one))


def _datasets(given: DatasetLike) -> Iterable[Dataset]:
    if isinstance(given, Dataset):
        return (given,)
    if isinstance(given, Mapping):
        return (Dataset.model_validate(dict(given)),)
    path = Path(given)
    try:
        if path.is_file() and path.suffix == ".dvc":
            return [_pointed_at(out) for out in _yaml(path)["outs"]]
        if path.is_file() and path.name == "dvc.lock":
            stages = _yaml(path)["stages"].values()
            made = {out["path"] for stage in stages for out in stage.get("outs", ())}
            read = {dep["path"]: dep for stage in stages for dep in stage.get("deps", ()) if dep["path"] not in made}
            return [_pointed_at(read[name]) for name in sorted(read)]
        return (Dataset(name=path.name, digest=path_digest(path)),)
    except OSError as error:
        raise HallmarkError("invalid-dataset", f"the data set {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise HallmarkError("invalid-dataset", f"{path} is no pointer that DVC wrote: {error!r}") from error


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _pointed_at(out: Mapping[str, Any]) -> Dataset:
    """What DVC knows of it: an MD5 (of a directory: of its listing), or the ETag of what lies elsewhere."""
    [kind, *_] = [kind for kind in ("md5", "etag", "checksum") if kind in out]
    return Dataset(name=str(out["path"]), version=f"{kind}:{out[kind]}")


def run() -> Pointer | None:
    """The run of MLflow or Weights & Biases that this process is in, where their package is loaded or names it."""
    mlflow, wandb = sys.modules.get("mlflow"), sys.modules.get("wandb")
    active = mlflow.active_run() if mlflow is not None and hasattr(mlflow, "active_run") else None
    if active is not None:
        return _pointer("mlflow", str(active.info.run_id), str(mlflow.get_tracking_uri()) if mlflow else None)
    current = getattr(wandb, "run", None)
    if current is not None:
        return _pointer("wandb", str(getattr(current, "path", None) or current.id), getattr(current, "url", None))
    for system, variable in (("mlflow", "MLFLOW_RUN_ID"), ("wandb", "WANDB_RUN_ID")):
        if os.environ.get(variable):
            return _pointer(system, os.environ[variable], None)
    return None


def _pointer(system: str, run_id: str, url: str | None) -> Pointer:
    """A tracker of this machine has no address that helps anybody else."""
    known = url if url and urlsplit(url).scheme in ("http", "https") else None
    return Pointer(system=system, id=run_id, url=without_password(known)[:MAX_LINE] if known else None)


def path_digest(path: Path) -> str:
    """The SHA-256 of a file; of a directory, that of its sorted lines `<file digest>  <relative path>`."""
    if not path.is_dir():
        return sha256_file(path)
    lines = [
        f"{sha256_file(file).removeprefix('sha256:')}  {file.relative_to(path).as_posix()}\n"
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    return f"sha256:{hashlib.sha256(''.join(sorted(lines)).encode()).hexdigest()}"


def onnx_signature(path: Path) -> Signature | None:
    """The inputs and outputs of an ONNX file, or None without onnxruntime.

    Raises:
        HallmarkError: code `invalid-artifact`; onnxruntime cannot load it.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise HallmarkError("invalid-artifact", f"{path} is not an ONNX model that can be loaded: {error}") from error

    def columns(nodes: Iterable[object]) -> tuple[Column, ...]:
        return tuple(
            Column(
                name=str(getattr(node, "name", "")),
                dtype=str(getattr(node, "type", "")),
                shape=tuple(size if isinstance(size, int) else None for size in getattr(node, "shape", None) or ()),
            )
            for node in nodes
        )

    return Signature(inputs=columns(session.get_inputs()), outputs=columns(session.get_outputs()))
