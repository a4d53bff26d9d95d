"""Policy documents, read strictly, with errors that name the line and the field.

The digest is the SHA-256 of the canonical JSON of the document as parsed, so anybody can compute it from the text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from contracts.canonical import canonical_json
from policy.impossible import impossible
from policy.reader import Mistake, Path, PolicyError, Reader, checked
from policy.schedule import duration
from policy.spec import PolicyDocument, Spec

MAX_DOCUMENT = 10_000


def digest_of(value: Any) -> str:
    return f"sha256:{sha256(canonical_json(value)).hexdigest()}"


@dataclass(frozen=True)
class Policy:
    """A document that was read, with its digest."""

    document: PolicyDocument
    text: str
    digest: str

    @property
    def name(self) -> str:
        return self.document.metadata.name

    @property
    def spec(self) -> Spec:
        return self.document.spec


def parse(text: str) -> Policy:
    """Reads a policy that somebody brings.

    Raises:
        PolicyError: with every mistake, its line and its field.
    """
    policy, lines = _read(text)
    if mistakes := list(_impossible(policy.spec, lines)):
        raise PolicyError(mistakes)
    return policy


def recorded(text: str) -> Policy:
    """Reads a policy that was taken. What nobody may bring any more, since it can do nothing, must not keep what is in
    force, or was, from being read."""
    return _read(text)[0]


@lru_cache(maxsize=500)
def _read(text: str) -> tuple[Policy, Mapping[Path, int]]:
    if len(text) > MAX_DOCUMENT:
        told = f"longer than {MAX_DOCUMENT} characters; write two policies, since all that match hold together"
        raise PolicyError([Mistake(1, "", told)])
    data, lines = Reader().read(text)
    return Policy(checked(PolicyDocument, data, lines), text, digest_of(data)), lines


def _impossible(spec: Spec, lines: Mapping[Path, int]) -> Iterator[Mistake]:
    for place, told in impossible(spec):
        path = ("spec", *place)
        yield Mistake(lines.get(path, 1), ".".join(map(str, path)), told)


def optional(text: str | None) -> timedelta | None:
    return None if text is None else duration(text)


def timeout(text: str) -> timedelta:
    """`500ms` or `24h` as a timedelta."""
    return timedelta(milliseconds=int(text[:-2])) if text.endswith("ms") else duration(text)
