"""Pseudonyms of people, what commits to whom they stand for, and how e-mail addresses look in a text. Pure."""

import re
from hashlib import sha256
from typing import Annotated

from pydantic import StringConstraints

from contracts.canonical import canonical_json

PSEUDONYM = re.compile(r"p_[a-z2-7]{26}")
Pseudonym = Annotated[str, StringConstraints(pattern=r"^p_[a-z2-7]{26}$")]
# Found by the @, which is quick, and looks at one character before it: punctuation further on hides nothing.
_ADDRESS = re.compile(r"@(?<=[\w+~-]@)(?:(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}|localhost)(?!\w)")
# Not the user of a URL (ssh://git@host), nor of a path to a repository (git@host:path, git@host/path).
_URL_USER = re.compile(r"://[^\s/?#@:]{1,200}@")
_GIT_USER = re.compile(r"git@(?<![\w.+-]git@)(?=[\w.-]{1,250}[:/]\w)")


def is_pseudonym(text: str) -> bool:
    return PSEUDONYM.fullmatch(text) is not None


def has_address(text: str) -> bool:
    """Whether something in the text looks like an e-mail address."""
    return _ADDRESS.search(text) is not None and _ADDRESS.search(_GIT_USER.sub("", _URL_USER.sub("", text))) is not None


def commitment(salt: bytes, issuer: str, name: str) -> str:
    """`sha256:<hex>` over the salt and the canonical JSON of the identity. Without the salt it tells nothing."""
    return f"sha256:{sha256(salt + canonical_json({'issuer': issuer, 'name': name})).hexdigest()}"
