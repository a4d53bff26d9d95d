"""Signed checkpoints: C2SP tlog-checkpoint in a signed note with Ed25519. Pure: `cryptography` only.

Source: C2SP signed-note 1.0.0 and tlog-checkpoint 1.0.0. A note is a text, an empty line, and signature lines
`— NAME BASE64(key id || signature)`; the text of a checkpoint is origin, size and base64 root, one a line.
"""

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ED25519 = b"\x01"


class NoteError(ValueError):
    """A note that is malformed or not signed by the key asked for; the text says which."""


@dataclass(frozen=True)
class Checkpoint:
    """What a log commits to: its first `size` entries hash to `root`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


class Signer:
    """Holds the log's key. `name` is the key's name, which for a log is its origin."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private
        self._public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def vkey(self) -> str:
        """The verifier key line: `NAME+hex key id+base64(0x01 || public key)`."""
        encoded = b64encode(ED25519 + self._public).decode()
        return f"{self.name}+{key_id(self.name, self._public).hex()}+{encoded}"

    def line(self, text: str) -> str:
        """The signature line of a text."""
        signature = self._private.sign(text.encode())
        return f"— {self.name} {b64encode(key_id(self.name, self._public) + signature).decode()}\n"

    def sign(self, size: int, root: bytes) -> str:
        """The signed checkpoint of a tree."""
        text = Checkpoint(self.name, size, root).text()
        return f"{text}\n{self.line(text)}"


def open_note(note: str, vkey: str) -> Checkpoint:
    """The checkpoint in a note, signed by the key of the line `vkey`. Signatures of other keys are passed over.

    Raises:
        NoteError: the key line or the note is malformed, or the key's signature is missing or wrong.
    """
    name, public = parse_vkey(vkey)
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the note has no signature part")
    text += "\n"
    if not _signed(text, signatures[:-1].split("\n"), name, public):
        raise NoteError(f"the note is not signed by {name}")
    lines = text.split("\n")
    if len(lines) < 4 or not (lines[1].isascii() and lines[1].isdecimal()) or str(int(lines[1])) != lines[1]:
        raise NoteError("the note is no checkpoint")
    checkpoint = Checkpoint(lines[0], int(lines[1]), _base64(lines[2]))
    if checkpoint.origin != name or len(checkpoint.root) != 32:
        raise NoteError("the checkpoint has another origin than its key, or its root is no SHA-256")
    return checkpoint


def is_signed_by(note: str, vkey: str) -> bool:
    try:
        open_note(note, vkey)
    except NoteError:
        return False
    return True


def parse_vkey(vkey: str) -> tuple[str, Ed25519PublicKey]:
    """Raises NoteError when the line is malformed or its key id is not that of its key."""
    name, _, rest = vkey.strip().partition("+")
    given_id, _, encoded = rest.partition("+")
    data = _base64(encoded)
    if not name or data[:1] != ED25519 or len(data) != 33:
        raise NoteError("not a verifier key line of an Ed25519 key")
    if key_id(name, data[1:]).hex() != given_id:
        raise NoteError("the key id of the verifier key line does not fit its key")
    return name, Ed25519PublicKey.from_public_bytes(data[1:])


def _signed(text: str, lines: list[str], name: str, public: Ed25519PublicKey) -> bool:
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    for line in lines:
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        if dash != "—" or not signer or not encoded:
            raise NoteError("a signature line is malformed")
        data = _base64(encoded)
        if signer != name or data[:4] != key_id(name, raw):
            continue
        try:
            public.verify(data[4:], text.encode())
        except InvalidSignature:
            raise NoteError(f"the signature of {name} is wrong") from None
        return True
    return False


def _base64(text: str) -> bytes:
    """Only the one right spelling of a value is taken."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError(f"not base64: {error}") from error
    if b64encode(data).decode() != text:
        raise NoteError("not base64: stray bits")
    return data
