"""What a model version is made of: everything fixed at registration, and what is learnt of it later."""

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from contracts.canonical import canonical_json
from contracts.payload import Digest, Key, Line, Metrics, Payload, Scalar, Text, VersionNumber

Size = Annotated[int, Field(ge=0)]
# Relative, with "/" between the parts; no part may step out of the directory or hide.
FilePath = Annotated[
    str, StringConstraints(max_length=500, pattern=r"^[^/\\\x00-\x1f\x7f]+(?:/[^/\\\x00-\x1f\x7f]+)*$")
]
S3Address = Annotated[
    str, StringConstraints(max_length=1_200, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x1f\x7f]+$")
]
DIRECTORY = "application/vnd.hallmark.directory+json"
MAX_FILES = 2_000
MAX_PART_BYTES = 255  # what Linux takes as the name of a file


class ArtifactFile(Payload):
    """One file of a directory artifact."""

    path: FilePath
    digest: Digest
    size: Size
    source: S3Address | None = None


class Artifact(Payload):
    """The model: one file, or a directory of `files`.

    One file: `digest` and `size` are those of its bytes. A directory: `digest` is that of its manifest (see
    `manifest_digest`), `size` the sum of its files', `filename` its name. `source` is where an existing object of the
    S3 store lies that is registered by reference; the registry copies and verifies it like an upload.

    `external`: it stays where it is, and the registry never reads it. `filename` is then its address, such as MLflow's
    `runs:/...`, `size` is 0, and `digest` that of the address (see `address_digest`). So a version never changes here
    either, and a decision is for that very address. What lies there is not vouched for: only bytes that the registry
    holds are, by the digest of their own.
    """

    digest: Digest
    size: Size
    filename: Line
    media_type: Line = "application/octet-stream"
    source: S3Address | None = None
    files: Annotated[tuple[ArtifactFile, ...], Field(max_length=MAX_FILES)] = ()
    external: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.external:
            if self.source is not None or self.files:
                raise ValueError("an external artifact has neither files nor a source: its filename is its address")
            if self.digest != address_digest(self.filename) or self.size != 0:
                raise ValueError("an external artifact has the digest of its address, and size 0")
            return self
        for part in self.parts():
            check_path(part.path)
            if part.source is not None and {".", ".."} & {*part.source.split("/")}:
                raise ValueError("a source has a part '.' or '..'")
        if not self.files:
            return self
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files must be sorted by path, each path once")
        taken = {*paths}
        if both := [path for path in paths if any(parent in taken for parent in _parents(path))]:
            raise ValueError(f"{both[0]}: a file lies where another path needs a directory")
        if self.source is not None:
            raise ValueError("a directory has a source for each file, not one of its own")
        if self.digest != manifest_digest(self.files) or self.size != sum(file.size for file in self.files):
            raise ValueError("digest and size are not those of the files' manifest")
        return self

    def parts(self) -> tuple[ArtifactFile, ...]:
        """Every file with its path; a single file's path is its name. None of an external artifact."""
        if self.files or self.external:
            return self.files
        name = self.filename.replace("\\", "/").rsplit("/", 1)[-1]
        path = name if name not in ("", ".", "..") else "artifact"
        return (ArtifactFile(path=path, digest=self.digest, size=self.size, source=self.source),)


def check_path(path: str) -> None:
    """Raises ValueError for a path that no file system takes, or that leaves its directory."""
    parts = path.split("/")
    if {".", ".."} & {*parts}:
        raise ValueError("a path has a part '.' or '..'")
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise ValueError(f"a part of a path has more than {MAX_PART_BYTES} bytes")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def manifest_digest(files: tuple[ArtifactFile, ...]) -> str:
    """`sha256:` of the canonical JSON of `[{"digest", "path", "size"}, ...]`, sorted by path."""
    manifest = [{"path": f.path, "digest": f.digest, "size": f.size} for f in sorted(files, key=lambda f: f.path)]
    return f"sha256:{sha256(canonical_json(manifest)).hexdigest()}"


def address_digest(address: str) -> str:
    """`sha256:` of the canonical JSON of `{"address": address}`."""
    return f"sha256:{sha256(canonical_json({'address': address})).hexdigest()}"


def external_artifact(address: str) -> Artifact:
    """The artifact that stays at this address."""
    return Artifact(digest=address_digest(address), size=0, filename=address, external=True)


class Dataset(Payload):
    name: Line
    version: Line | None = None
    digest: Digest | None = None
    uri: Line | None = None


class Pointer(Payload):
    """An object of another system: a run of a tracker, a version of a feature store."""

    system: Line
    id: Line
    version: Line | None = None
    url: Line | None = None


class Lineage(Payload):
    """`committers`: subjects or e-mail addresses of whose commits are in it; policies may keep them from voting."""

    git_repository: Line | None = None
    git_commit: Line | None = None
    git_dirty: bool | None = None
    command: Text | None = None
    datasets: tuple[Dataset, ...] = ()
    feature_stores: tuple[Pointer, ...] = ()
    run: Pointer | None = None
    parents: tuple[VersionNumber, ...] = ()
    committers: Annotated[tuple[Line, ...], Field(max_length=200)] = ()


class Column(Payload):
    name: Line
    dtype: Line
    shape: tuple[int | None, ...] = ()


class Signature(Payload):
    """The input and output schema."""

    inputs: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = ()


class Environment(Payload):
    python: Line | None = None
    platform: Line | None = None
    packages: dict[Key, Line] = Field(default_factory=dict)
    hardware: dict[Key, Line] = Field(default_factory=dict)


Direction = Literal["higher", "lower"]


class VersionContent(Payload):
    """What never changes once registered (law 4). `better` says of a metric which direction is the better one."""

    artifact: Artifact
    metrics: Metrics = Field(default_factory=dict)
    better: dict[Key, Direction] = Field(default_factory=dict)
    parameters: dict[Key, Scalar] = Field(default_factory=dict)
    signature: Signature = Signature()
    environment: Environment = Environment()
    lineage: Lineage = Lineage()
    trained_at: AwareDatetime | None = None
    training_seconds: Annotated[float, Field(ge=0)] | None = None
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)
    notes: Text = ""

    def digest(self) -> str:
        """`sha256:` of its canonical JSON: what approvals and decisions bind to.

        Fields that later releases added are left out at their default: old versions keep their digest.
        """
        given = self.model_dump(mode="json")
        artifact, lineage = given["artifact"], given["lineage"]
        later = ((given, "better"), (lineage, "committers"), *((artifact, n) for n in ("source", "files", "external")))
        for owner, name in later:
            if not owner[name]:
                del owner[name]
        return f"sha256:{sha256(canonical_json(given)).hexdigest()}"


class Evaluation(Payload):
    """Metrics measured later, on a named data set."""

    dataset: Dataset
    metrics: Annotated[Metrics, Field(min_length=1)]
    evaluated_at: AwareDatetime
    notes: Text = ""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    UNSAFE = "unsafe"


class Finding(Payload):
    """Something a scanner saw. UNSAFE quarantines the version."""

    severity: Severity
    code: Line
    detail: Text
    file: Line | None = None


class Inspection(Payload):
    """What the registry found in the artifact without loading it. `signature` is what the file itself declares."""

    format: Line | None = None
    signature: Signature = Signature()
    findings: Annotated[tuple[Finding, ...], Field(max_length=200)] = ()
    scanner: Line

    @property
    def unsafe(self) -> bool:
        return any(finding.severity is Severity.UNSAFE for finding in self.findings)
