"""What a model version is made of: everything fixed at registration."""

from hashlib import sha256
from typing import Annotated

from pydantic import AwareDatetime, Field

from contracts.canonical import canonical_json
from contracts.payload import Digest, Key, Line, Metrics, Payload, Scalar, Text, VersionNumber


class Artifact(Payload):
    """The model file: its SHA-256 and size name it; the bytes are in the object store."""

    digest: Digest
    size: Annotated[int, Field(ge=0)]
    filename: Line
    media_type: Line = "application/octet-stream"


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
    git_repository: Line | None = None
    git_commit: Line | None = None
    git_dirty: bool | None = None
    command: Text | None = None
    datasets: tuple[Dataset, ...] = ()
    feature_stores: tuple[Pointer, ...] = ()
    run: Pointer | None = None
    parents: tuple[VersionNumber, ...] = ()


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


class VersionContent(Payload):
    """What never changes once registered (law 4)."""

    artifact: Artifact
    metrics: Metrics = Field(default_factory=dict)
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
        """`sha256:` of the canonical JSON of all of it: what approvals and decisions bind to."""
        return f"sha256:{sha256(canonical_json(self.model_dump(mode='json'))).hexdigest()}"
