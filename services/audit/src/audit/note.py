"""Signed checkpoints: C2SP tlog-checkpoint in a signed note, with the keys of a log and of its witnesses. Pure.

Source: C2SP signed-note 1.0.0, tlog-checkpoint 1.0.0 and tlog-cosignature 1.0.1. A note is a text, an empty line, and
signature lines `— NAME BASE64(key id || signature)`; the text of a checkpoint is origin, size and base64 root, one a
line. A verifier key line is `NAME+hex key id+base64(kind || public key)`.
"""

import re
import time
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

# The kinds of key: the log's plain signature, a witness's cosignature, and ML-DSA-44, which either may use.
ED25519 = b"\x01"
COSIGNATURE = b"\x04"
MLDSA44 = b"\x06"
MAX_SIGNATURES = 100  # as Go's note package; the specification asks for 16 at least
MAX_NAME_BYTES = 255  # of a name or origin inside what ML-DSA-44 signs
_NAME = re.compile(r"[^\s+\x00-\x20\x7f]+")


class NoteError(ValueError):
    """A note or key line that is malformed, or not signed by the key asked for; the text says which."""


@dataclass(frozen=True)
class Checkpoint:
    """What a log commits to: its first `size` entries hash to `root`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def key_id(name: str, public: bytes, kind: bytes = ED25519) -> bytes:
    return sha256(name.encode() + b"\n" + kind + public).digest()[:4]


class NoteSigner(Protocol):
    """One private key of a log."""

    @property
    def vkey(self) -> str: ...

    def line(self, text: str) -> str:
        """The signature line of the text of a checkpoint."""


class Signer:
    """Signs with the log's Ed25519 key. `name` is the key's name, which for a log is its origin."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private
        self._public = private.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        return _vkey(self.name, ED25519, self._public)

    def line(self, text: str) -> str:
        return _line(self.name, ED25519, self._public, self._private.sign(text.encode()))

    def envelope(self, data: bytes) -> bytes:
        """The signature over the pre-authentication encoding of a DSSE envelope, which no checkpoint looks like.

        Raises:
            NoteError: the bytes are no such encoding.
        """
        if not data.startswith(b"DSSEv1 "):
            raise NoteError("only checkpoints and envelopes are signed with this key")
        return self._private.sign(data)

    def sign(self, size: int, root: bytes) -> str:
        """The checkpoint of a tree with this one signature."""
        text = Checkpoint(self.name, size, root).text()
        return f"{text}\n{self.line(text)}"


class MldsaSigner:
    """Signs with the log's ML-DSA-44 key. Its signature carries the time in seconds, and differs at every call.

    Raises:
        ValueError: the name has more than 255 bytes.
    """

    def __init__(self, name: str, private: MLDSA44PrivateKey, clock: Callable[[], float] = time.time) -> None:
        _field(name)
        self.name = name
        self._private, self._clock = private, clock
        self._public = private.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        return _vkey(self.name, MLDSA44, self._public)

    def line(self, text: str) -> str:
        stamp = int(self._clock()).to_bytes(8, "big")
        signature = self._private.sign(cosigned_message(self.name, stamp, read_checkpoint(text)))
        return _line(self.name, MLDSA44, self._public, stamp + signature)


class Verifier(ABC):
    """One public key. `vkey` is its line."""

    kind: ClassVar[bytes]

    def __init__(self, name: str, public: bytes) -> None:
        self.name, self.key_id = name, key_id(name, public, self.kind)
        self.vkey = _vkey(name, self.kind, public)

    @abstractmethod
    def verify(self, signature: bytes, text: str) -> None:
        """Raises InvalidSignature, or NoteError for a text that this kind of key cannot sign."""


class Ed25519Verifier(Verifier):
    kind = ED25519

    def __init__(self, name: str, public: bytes) -> None:
        super().__init__(name, public)
        self._public = Ed25519PublicKey.from_public_bytes(public)

    def verify(self, signature: bytes, text: str) -> None:
        self._public.verify(signature, text.encode())


class CosignatureVerifier(Ed25519Verifier):
    """The Ed25519 key of a witness: its signature begins with the time."""

    kind = COSIGNATURE

    def verify(self, signature: bytes, text: str) -> None:
        stamp, rest = _stamped(signature)
        header = f"cosignature/v1\ntime {int.from_bytes(stamp, 'big')}\n"
        super().verify(rest, header + text)


class Mldsa44Verifier(Verifier):
    """It signs origin, size and root, but no extension line."""

    kind = MLDSA44

    def __init__(self, name: str, public: bytes) -> None:
        super().__init__(name, public)
        _field(name)
        self._public = MLDSA44PublicKey.from_public_bytes(public)

    def verify(self, signature: bytes, text: str) -> None:
        stamp, rest = _stamped(signature)
        self._public.verify(rest, cosigned_message(self.name, stamp, read_checkpoint(text)))


_KINDS: dict[bytes, type[Verifier]] = {v.kind: v for v in (Ed25519Verifier, CosignatureVerifier, Mldsa44Verifier)}


def parse_vkey(vkey: str) -> Verifier:
    """Raises NoteError when the line is malformed, of an unknown kind, or its key id is not that of its key."""
    name, _, rest = vkey.strip().partition("+")
    given, _, encoded = rest.partition("+")
    data = _base64(encoded)
    kind = _KINDS.get(data[:1])
    if not _NAME.fullmatch(name) or kind is None:
        raise NoteError("not a verifier key line of an Ed25519 or ML-DSA-44 key")
    try:
        verifier = kind(name, data[1:])
    except ValueError as error:
        raise NoteError(f"the verifier key line holds no such key: {error}") from error
    if verifier.key_id.hex() != given:
        raise NoteError("the key id of the verifier key line does not fit its key")
    return verifier


@dataclass(frozen=True)
class Opened:
    """A checkpoint, the keys whose signatures verified, and their lines of the note by the keys' vkeys."""

    checkpoint: Checkpoint
    keys: tuple[Verifier, ...]
    lines: dict[str, str]


def verify_note(note: str, verifiers: Sequence[Verifier]) -> Opened:
    """Opens a note that at least one of these keys signed. Signatures of other keys are passed over.

    Raises:
        NoteError: the note is malformed or no checkpoint, a signature of one of the keys is wrong, or there is none.
    """
    text, lines = split_note(note)
    known = {(v.name, v.key_id): v for v in verifiers}
    found: dict[str, str] = {}
    keys = []
    for line in lines:
        name, data = _read_line(line)
        verifier = known.get((name, data[:4]))
        if verifier is None:
            continue
        try:
            verifier.verify(data[4:], text)
        except InvalidSignature:
            raise NoteError(f"the signature of {name} is wrong") from None
        if verifier.vkey not in found:
            found[verifier.vkey] = f"{line}\n"
            keys.append(verifier)
    if not keys:
        raise NoteError(f"the note is not signed by {' or '.join(sorted({v.name for v in verifiers})) or 'anybody'}")
    return Opened(read_checkpoint(text), tuple(keys), found)


def open_note(note: str, *vkeys: str) -> Checkpoint:
    """The checkpoint in a note that at least one of these keys of a log signed, and whose origin they are named for.

    Raises:
        NoteError: a key line or the note is malformed, or a signature of the keys is wrong, or there is none.
    """
    opened = verify_note(note, [parse_vkey(vkey) for vkey in vkeys])
    if any(key.name != opened.checkpoint.origin for key in opened.keys):
        raise NoteError("the checkpoint has another origin than its key")
    return opened.checkpoint


def is_signed_by(note: str, vkey: str) -> bool:
    try:
        open_note(note, vkey)
    except NoteError:
        return False
    return True


def split_note(note: str) -> tuple[str, list[str]]:
    """The text, with its final newline, and the signature lines, without. Raises NoteError."""
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise NoteError("the note is not UTF-8") from error
    if re.search(r"[\x00-\x09\x0b-\x1f]", note):
        raise NoteError("the note holds a control character")
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the note has no signature part")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"the note has more than {MAX_SIGNATURES} signatures")
    return f"{text}\n", lines


def read_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note's text. Extension lines are passed over. Raises NoteError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise NoteError("the note is no checkpoint: it needs three lines and no empty one")
    origin, size, root = lines[0], lines[1], _base64(lines[2])
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size) or int(size) >= 1 << 63:
        raise NoteError("the note is no checkpoint: its size is not a number")
    if len(root) != 32:
        raise NoteError("the note is no checkpoint: its root is no SHA-256")
    return Checkpoint(origin, int(size), root)


def cosigned_message(name: str, stamp: bytes, checkpoint: Checkpoint) -> bytes:
    """What an ML-DSA-44 key signs; `stamp` is the time, seconds as 8 bytes big-endian. Raises NoteError."""
    end = checkpoint.size.to_bytes(8, "big")
    return b"".join([b"subtree/v1\n\0", _field(name), stamp, _field(checkpoint.origin), bytes(8), end, checkpoint.root])


def _field(text: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= MAX_NAME_BYTES:
        raise NoteError(f"an ML-DSA-44 signature holds names of 1 to {MAX_NAME_BYTES} bytes")
    return bytes([len(data)]) + data


def _stamped(signature: bytes) -> tuple[bytes, bytes]:
    """The time and the rest of a timestamped signature; a time beyond 2^63 - 1 s is none."""
    if len(signature) < 8 or signature[0] & 0x80:
        raise InvalidSignature
    return signature[:8], signature[8:]


def _vkey(name: str, kind: bytes, public: bytes) -> str:
    return f"{name}+{key_id(name, public, kind).hex()}+{b64encode(kind + public).decode()}"


def _line(name: str, kind: bytes, public: bytes, signature: bytes) -> str:
    return f"— {name} {b64encode(key_id(name, public, kind) + signature).decode()}\n"


def _read_line(line: str) -> tuple[str, bytes]:
    """The key's name, and the key id with the signature."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    data = _base64(encoded)
    if dash != "—" or not _NAME.fullmatch(name) or len(data) < 5:
        raise NoteError("a signature line is malformed")
    return name, data


def _base64(text: str) -> bytes:
    """Only the one right spelling of a value is taken."""
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError(f"not base64: {error}") from error
    if b64encode(data).decode() != text:
        raise NoteError("not base64: stray bits")
    return data
