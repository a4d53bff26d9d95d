"""The strict base of every payload, and the constrained types that payloads share."""

import unicodedata
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


class Payload(BaseModel):
    """A frozen value that refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64")


class Message(Payload):
    """A payload that travels on its own: an event or a command, named by its CloudEvents type."""

    TYPE: ClassVar[str]


# PostgreSQL cannot store NUL in text, so no string may hold it.
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
# A compact JWS: the signed decision with all its gates, votes and comments.
Jws = Annotated[str, StringConstraints(max_length=1_000_000, pattern=r"^[\x21-\x7e]*$")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=2_000, pattern=r"^[^\x00]*$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00-\x1f\x7f]+$")]

Workspace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
# Characters that show nothing, or turn the text around: two names must not look the same.
_DECEPTIVE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _plain(name: str) -> str:
    """Raises ValueError for a name that is not what it looks like."""
    if unicodedata.normalize("NFC", name) != name:
        raise ValueError("write it in Unicode's form NFC")
    for character in name:
        if unicodedata.category(character) in _DECEPTIVE or (character != " " and character.isspace()):
            raise ValueError(f"the character U+{ord(character):04X} cannot be seen")
    return name


# MLflow refuses "/" and ":" too; a leading dot would be a path step in a URL.
ModelName = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^[^/:.\x00-\x20\x7f](?:[^/:\x00-\x1f\x7f]*[^/:\x00-\x20\x7f])?$"),
    AfterValidator(_plain),
]
# Stages are a workspace's own; "@champion" is the alias champion, as the target of a transition.
StageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$")]
AliasName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w-]{0,99}$")]
Target = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z][A-Za-z0-9_-]{0,49}|@[A-Za-z_][\w-]{0,99})$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")]
VersionNumber = Annotated[int, Field(ge=1, le=2_147_483_647)]
Metrics = dict[Key, float]
Scalar = bool | int | float | Text | None
