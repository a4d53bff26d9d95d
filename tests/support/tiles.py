"""Reads a published log as a stranger would: from the store's objects alone, by C2SP tlog-tiles and RFC 6962.

Naive on purpose, and without a line of ours: what it finds to be whole is whole.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256

Read = Callable[[str], Awaitable[bytes | None]]


def tree(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, to the letter."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\x01" + tree(hashes[:split]) + tree(hashes[split:])).digest()


def path(level: int | str, number: int, width: int = 256) -> str:
    text = f"{number:03}"
    while len(text) % 3:
        text = "0" + text
    parts = [text[i : i + 3] for i in range(0, len(text), 3)]
    partial = f".p/{width}" if width < 256 else ""
    return f"tile/{level}/" + "/".join(["x" + part for part in parts[:-1]] + parts[-1:]) + partial


async def assert_published(read: Read) -> int:
    """The size of the log whose checkpoint, tiles and bundles agree in every byte."""
    note = await read("checkpoint")
    assert note is not None
    _, size_line, root = note.decode().split("\n")[:3]
    size = int(size_line)
    assert await read(f"checkpoints/{size}") == note
    entries: list[bytes] = []
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        data = await read(path("entries", number, width))
        assert data is not None, path("entries", number, width)
        while data:
            length = int.from_bytes(data[:2], "big")
            assert len(data) >= 2 + length
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
    assert len(entries) == size
    hashes = [sha256(b"\x00" + entry).digest() for entry in entries]
    assert b64encode(tree(hashes)).decode() == root
    level = 0
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            part = hashes[number * 256 : (number + 1) * 256]
            assert await read(path(level, number, len(part))) == b"".join(part), path(level, number, len(part))
        hashes = [tree(hashes[i : i + 256]) for i in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    return size
