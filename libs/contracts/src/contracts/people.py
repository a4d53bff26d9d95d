"""Pseudonyms of people, what commits to whom they stand for, and how e-mail addresses look in a text. Pure."""

import re
from hashlib import sha256
from typing import Annotated

from pydantic import StringConstraints

from contracts.canonical import canonical_json

PSEUDONYM = re.compile(r"p_[a-z2-7]{26}")
Pseudonym = Annotated[str, StringConstraints(pattern=r"^p_[a-z2-7]{26}$")]
# Not the user of a URL (ssh://git@host), nor of a path to a repository (git@host:path).
_ADDRESS = re.compile(
    r"(?<!//)(?<![\w.!#$%&'*+=?^`{|}~-])(?!git@)\w[\w.!#$%&'*+=?^`{|}~-]{0,63}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?!\w)"
)


def is_pseudonym(text: str) -> bool:
    return PSEUDONYM.fullmatch(text) is not None


def has_address(text: str) -> bool:
    """Whether something in the text looks like an e-mail address."""
    return "@" in text and _ADDRESS.search(text) is not None


def commitment(salt: bytes, issuer: str, name: str) -> str:
    """`sha256:<hex>` over the salt and the canonical JSON of the identity. Without the salt it tells nothing."""
    return f"sha256:{sha256(salt + canonical_json({'issuer': issuer, 'name': name})).hexdigest()}"
