"""The log's objects in the S3 store: written once, locked against change where the store can, read back as they are.

Layout of the bucket: `tile/...` as C2SP tlog-tiles has it, `checkpoint` (the only object that changes),
`checkpoints/<size>`, `sizes/<99...9 - size>` (so that the first key names the largest), `leaf/<sha256>` (leaves too
large for a bundle).
"""

from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from audit import merkle
from audit.leaf import Detached, decode
from audit.tlog.tiles import WIDTH, Tile, entries_of
from kit.blobs import BlobStore
from kit.problems import Problem

CHECKPOINT = "checkpoint"
BUNDLES_BYTES = 32 << 20
SIZES, LARGEST = "sizes/", 10**19 - 1
TEXT, BYTES = "text/plain; charset=utf-8", "application/octet-stream"


def leaf_key(digest: bytes) -> str:
    """Where a large leaf with this SHA-256 lies."""
    return f"leaf/{digest.hex()}"


class Damage(Problem):
    """Part of the log is missing, or not what it was. `GET /v1/log/verify` finds out where."""

    def __init__(self, detail: str, code: str = "log-damaged") -> None:
        super().__init__(500, code, detail)


class Contradiction(Damage):
    """The log contradicts what was published: nothing more is, until somebody finds out why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "split-log")


class Archive:
    """`lock_days`: how long objects that are never to change are locked (COMPLIANCE: nobody can unlock them)."""

    def __init__(self, store: BlobStore, *, lock_days: int = 0) -> None:
        self.store = store
        self._lock_days = lock_days
        self._locks: bool | None = None
        self._bundles = Bundles(BUNDLES_BYTES)

    async def ready(self) -> None:
        """Makes the bucket where it is not there, with object lock where the store has it."""
        await self.store.ensure_bucket(object_lock=True)

    async def keep(self, key: str, data: bytes, *, content_type: str = BYTES, lock: bool = True) -> None:
        """Writes an object that never changes. The same bytes again are no error.

        Raises:
            Contradiction: other bytes lie there.
        """
        headers = {"Content-Type": content_type, "If-None-Match": "*", **(await self._lock() if lock else {})}
        if await self.store.put(key, data, headers) is not None:
            return
        found = await self.store.read(key)
        if found is None:  # deleted meanwhile, or another writer was in the middle of it: the caller comes again
            raise ConnectionError(f"{key} was there and is not")
        if found[0] != data:
            raise Contradiction(f"the object store holds other bytes under {key}")

    async def keep_first(self, key: str, data: bytes, *, content_type: str = BYTES) -> bytes:
        """Writes an object that never changes, unless there is one. Gives what lies there in the end."""
        headers = {"Content-Type": content_type, "If-None-Match": "*", **await self._lock()}
        if await self.store.put(key, data, headers) is not None:
            return data
        found = await self.read(key)
        if found is None:
            raise ConnectionError(f"{key} was there and is not")
        return found

    async def read(self, key: str) -> bytes | None:
        found = await self.store.read(key)
        return None if found is None else found[0]

    async def checkpoint(self) -> tuple[str, str] | None:
        """The newest published note and its ETag, or None before the first."""
        found = await self.store.read(CHECKPOINT)
        return None if found is None else (found[0].decode(), found[1])

    async def replace_checkpoint(self, note: str, etag: str | None) -> bool:
        """Puts the note in the place of the one with that ETag. False: another was put there meanwhile."""
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        headers = {"Content-Type": TEXT, "Cache-Control": "no-cache", **condition}
        return await self.store.put(CHECKPOINT, note.encode(), headers) is not None

    async def keep_size(self, size: int) -> None:
        """Notes that a checkpoint of that size was signed."""
        await self.keep(f"{SIZES}{LARGEST - size:019}", f"{size}\n".encode(), content_type=TEXT)

    async def largest(self) -> int:
        """The largest size noted, also where somebody has hidden it behind a delete marker; 0 before the first.

        Raises:
            Contradiction: a key of somebody else comes before those of the sizes.
        """
        key = await self.store.first_key(SIZES)
        if key is None:
            return 0
        try:
            return LARGEST - int(key.removeprefix(SIZES))
        except ValueError as error:
            raise Contradiction(f"{key!r} in the object store names no size of a checkpoint") from error

    async def delete_under(self, prefix: str) -> None:
        await self.store.delete(*[item.key async for item in self.store.objects(prefix)])

    async def keep_leaf(self, digest: bytes, data: bytes) -> None:
        """A leaf too large for a bundle, under its SHA-256."""
        await self.keep(leaf_key(digest), data)

    async def entry(self, index: int, leaf_hash: bytes) -> bytes:
        """An entry from its full bundle: the bytes that `leaf_hash` commits to.

        Raises:
            Contradiction: the store does not have them.
        """
        number, within = divmod(index, WIDTH)
        entries = self._bundles.get(number)
        if entries is None:
            found = await self.read(Tile(-1, number).path)
            try:
                entries = entries_of(found or b"")
            except ValueError as error:
                raise Contradiction(f"the bundle of entry {index} in the object store was changed: {error}") from error
            if len(entries) == WIDTH:
                self._bundles.put(number, entries)
        if within >= len(entries):
            raise Contradiction(f"the bundle of entry {index} is not in the object store, or was changed")
        if merkle.leaf_hash(entries[within]) != leaf_hash:
            self._bundles.drop(number)
            raise Contradiction(f"entry {index} in the object store is not the one that was logged")
        return entries[within]

    async def inline(self, data: bytes) -> bytes:
        """The full bytes of a leaf, also of a detached one.

        Raises:
            Contradiction: the store has lost or changed them.
        """
        leaf = decode(data)
        if not isinstance(leaf, Detached):
            return data
        found = await self.read(leaf_key(leaf.sha256))
        if found is None or sha256(found).digest() != leaf.sha256:
            raise Contradiction(f"the large leaf {leaf.sha256.hex()} is not in the object store, or was changed")
        return found

    async def locks(self) -> bool:
        """Whether the store can lock objects."""
        return await self.store.can_lock()

    async def hold(self, key: str, *, on: bool) -> bool:
        """Puts S3's legal hold on an object, or takes it off. False: the store has no such object, or no holds."""
        return await self.store.hold(key, on=on)

    async def lock_anew(self, key: str) -> None:
        """Locks an object for as long as a new one would be, unless it is locked for longer. Nothing where the store
        cannot lock.

        Raises:
            Contradiction: there is no such object, or the store did not lock it.
        """
        if await self._lock() and not await self.store.lock_until(key, self._locked_until()):
            raise Contradiction(f"the object store does not have {key}, or does not lock it")

    def _locked_until(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self._lock_days)

    async def _lock(self) -> dict[str, str]:
        if self._locks is None:
            await self.ready()  # of a bucket that is not there yet nobody can tell
            self._locks = self._lock_days > 0 and await self.store.can_lock()
        if not self._locks:
            return {}
        return {
            "x-amz-object-lock-mode": "COMPLIANCE",
            "x-amz-object-lock-retain-until-date": self._locked_until().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class Bundles:
    """The bundles that were read last, of so many bytes at the most."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()

    def get(self, number: int) -> list[bytes] | None:
        if number in self._kept:
            self._kept.move_to_end(number)
        return self._kept.get(number)

    def put(self, number: int, entries: list[bytes]) -> None:
        self.drop(number)
        self._kept[number] = entries
        self._held += sum(map(len, entries))
        while self._held > self._limit and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def drop(self, number: int) -> None:
        self._held -= sum(map(len, self._kept.pop(number, ())))
