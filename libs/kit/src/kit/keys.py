"""Ed25519 keys and tokens of the built-in issuer, and ML-DSA-44 keys.

python -m kit.keys DIR auth decision checkpoint
python -m kit.keys mldsa44 DIR checkpoint
python -m kit.keys token --key DIR/auth.jwk --subject ana --group ml-engineers --ttl 12h
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from joserfc import jwt
from joserfc.jwk import OKPKey

from kit.ring import Ring, RingKey, public_path, read_ring, replace_file

# RFC 9864 prefers the name "Ed25519"; most verifiers in the field know "EdDSA" only.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def ensure_key(directory: Path, name: str) -> OKPKey:
    """The private key that signs now of `DIR/NAME.jwk`, made with its public `DIR/NAME.jwks.json` where absent."""
    private = directory / f"{name}.jwk"
    directory.mkdir(parents=True, exist_ok=True)
    if not private.exists():
        key = OKPKey.generate_key("Ed25519", auto_kid=True)
        _put_once(private, json.dumps({**key.as_dict(private=True), "kid": key.kid}))
    now = time.time()
    ring = read_ring(private, now)
    public, text = public_path(private), json.dumps(ring.published())
    # A set is public as it is, although its last change was cut short. Beside one key, somebody may have added others.
    if not public.exists() or (not ring.plain and public.read_text() != text):
        replace_file(public, text, 0o644)
    return ring.signing(now)


def load_key(path: Path) -> OKPKey:
    """The key that signs now. Raises ValueError when the file is missing or holds no Ed25519 JWK, or set of them."""
    now = time.time()
    return read_ring(path, now).signing(now)


def ensure_mldsa44(directory: Path, name: str) -> Path:
    """The file `DIR/NAME.mldsa44.pem` with a private ML-DSA-44 key (PKCS#8), made where absent."""
    path = directory / f"{name}.mldsa44.pem"
    directory.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        key = MLDSA44PrivateKey.generate()
        _put_once(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return path


def load_mldsa44(path: Path) -> MLDSA44PrivateKey:
    """Raises ValueError, which names the file, when it is missing or holds no private ML-DSA-44 key in PKCS#8 PEM."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"cannot read the key {path}: {error}") from error
    if not isinstance(key, MLDSA44PrivateKey):
        raise ValueError(f"cannot read the key {path}: it is no ML-DSA-44 key")
    return key


def public_jwks(key: OKPKey) -> dict[str, object]:
    """The key set to publish: the public half only."""
    return Ring((RingKey(key),)).published()


def make_token(
    key: OKPKey,
    subject: str,
    groups: list[str],
    *,
    ttl_seconds: int = 12 * 3600,
    kind: str = "person",
    issuer: str = "hallmark",
    audience: str = "hallmark",
    email: str | None = None,
) -> str:
    """A signed JWT of the built-in issuer."""
    at = int(time.time())
    claims: dict[str, object] = {"email": email, "email_verified": True} if email else {}
    claims |= {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "groups": groups,
        "kind": kind,
        "iat": at,
        "exp": at + ttl_seconds,
    }
    return jwt.encode({"alg": "EdDSA", "kid": key.kid, "typ": "JWT"}, claims, key, algorithms=["EdDSA"])


def _put_once(path: Path, text: str) -> None:
    """Writes the whole file, for its owner alone; does nothing when somebody else was faster."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def seconds(text: str) -> int:
    """`12h` -> 43200."""
    if text[-1:] in UNITS and text[:-1].isdecimal():
        return int(text[:-1]) * UNITS[text[-1]]
    raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30m, 12h or 7d")


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["token"]:
        parser = argparse.ArgumentParser(prog="python -m kit.keys token")
        parser.add_argument("--key", type=Path, required=True)
        parser.add_argument("--subject", required=True)
        parser.add_argument("--group", action="append", default=[])
        parser.add_argument("--email", help="a mailbox that they read")
        parser.add_argument("--kind", choices=["person", "service"], default="person")
        parser.add_argument("--ttl", type=seconds, default=seconds("12h"))
        given = parser.parse_args(arguments[1:])
        key = load_key(given.key)
        options = {"ttl_seconds": given.ttl, "kind": given.kind, "email": given.email}
        sys.stdout.write(make_token(key, given.subject, given.group, **options) + "\n")
        return
    post_quantum = arguments[:1] == ["mldsa44"]
    parser = argparse.ArgumentParser(prog="python -m kit.keys", description="Makes keys that are absent.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("name", nargs="+")
    given = parser.parse_args(arguments[post_quantum:])
    for name in given.name:
        (ensure_mldsa44 if post_quantum else ensure_key)(given.directory, name)


if __name__ == "__main__":
    main(sys.argv[1:])
