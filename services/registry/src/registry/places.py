"""Where bytes lie in the bucket, and the lock that guards a digest (see `artifacts.py`)."""

from hashlib import sha256

import sqlalchemy as sa

UPLOADS, ASIDE, BLOBS = "uploads/", "verifying/", "blobs/"
LOCKS = 64  # a registration of thousands of files must not fill PostgreSQL's lock table
LOCK_SPACE = 0x68616C6C


def upload_key(digest: str, owner: str) -> str:
    """Where a principal puts bytes that nobody has verified yet."""
    return f"{uploads_of(digest)}{sha256(owner.encode()).hexdigest()[:16]}"


def uploads_of(digest: str) -> str:
    """What the keys of all uploads of a digest begin with."""
    return f"{UPLOADS}sha256/{digest.removeprefix('sha256:')}."


def blob_key(digest: str) -> str:
    """Where verified bytes live. Only the registry writes here."""
    name = digest.removeprefix("sha256:")
    return f"{BLOBS}sha256/{name[:2]}/{name}"


def digest_of(key: str) -> str | None:
    """The digest that an upload's or a blob's key names."""
    name = key.rsplit("/", 1)[-1].split(".", 1)[0]
    return f"sha256:{name}" if len(name) == 64 and set(name) <= set("0123456789abcdef") else None


def lock_of(digest: str) -> int:
    return int(digest.removeprefix("sha256:")[:2], 16) * LOCKS // 256


def share(lock: int) -> sa.Select[tuple[None]]:
    """Waits; held until the transaction ends."""
    return sa.select(sa.func.pg_advisory_xact_lock_shared(LOCK_SPACE, lock))


def take_alone(lock: int) -> sa.Select[tuple[bool]]:
    """Does not wait: gives whether it was free. Held until the transaction ends."""
    return sa.select(sa.func.pg_try_advisory_xact_lock(LOCK_SPACE, lock))
