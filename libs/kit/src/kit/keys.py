"""Ed25519 keys and tokens of the built-in issuer.

python -m kit.keys DIR auth decision checkpoint
python -m kit.keys token --key DIR/auth.jwk --subject ana --group ml-engineers --ttl 12h
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

# RFC 9864 prefers the name "Ed25519"; most verifiers in the field know "EdDSA" only.
warnings.filterwarnings("ignore", message="EdDSA is deprecated")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def ensure_key(directory: Path, name: str) -> OKPKey:
    """The private key `DIR/NAME.jwk`, made with its public `DIR/NAME.jwks.json` where absent."""
    private = directory / f"{name}.jwk"
    directory.mkdir(parents=True, exist_ok=True)
    if not private.exists():
        key = OKPKey.generate_key("Ed25519", auto_kid=True)
        scratch = private.with_suffix(f".{os.getpid()}.new")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({**key.as_dict(private=True), "kid": key.kid}, file)
        try:
            os.link(scratch, private)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    key = load_key(private)
    public = directory / f"{name}.jwks.json"
    if not public.exists():
        public.write_text(json.dumps(public_jwks(key)))
    return key


def load_key(path: Path) -> OKPKey:
    """Raises ValueError when the file is missing or no Ed25519 JWK."""
    try:
        key = OKPKey.import_key(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, LookupError, JoseError) as error:
        raise ValueError(f"cannot read the key {path}: {error}") from error
    key.ensure_kid()
    return key


def public_jwks(key: OKPKey) -> dict[str, object]:
    """The key set to publish: the public half only."""
    return {"keys": [{**key.as_dict(private=False), "kid": key.kid, "use": "sig", "alg": "EdDSA"}]}


def make_token(
    key: OKPKey,
    subject: str,
    groups: list[str],
    *,
    ttl_seconds: int = 12 * 3600,
    kind: str = "person",
    issuer: str = "hallmark",
    audience: str = "hallmark",
) -> str:
    """A signed JWT of the built-in issuer."""
    at = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "groups": groups,
        "kind": kind,
        "iat": at,
        "exp": at + ttl_seconds,
    }
    return jwt.encode({"alg": "EdDSA", "kid": key.kid, "typ": "JWT"}, claims, key, algorithms=["EdDSA"])


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
        parser.add_argument("--kind", choices=["person", "service"], default="person")
        parser.add_argument("--ttl", type=seconds, default=seconds("12h"))
        given = parser.parse_args(arguments[1:])
        key = load_key(given.key)
        sys.stdout.write(make_token(key, given.subject, given.group, ttl_seconds=given.ttl, kind=given.kind) + "\n")
        return
    parser = argparse.ArgumentParser(prog="python -m kit.keys", description="Makes keys that are absent.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("name", nargs="+")
    given = parser.parse_args(arguments)
    for name in given.name:
        ensure_key(given.directory, name)


if __name__ == "__main__":
    main(sys.argv[1:])
