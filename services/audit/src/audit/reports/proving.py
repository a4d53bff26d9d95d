"""The proofs that the entries of an answer are under a checkpoint: the newest, unless it is too small for them."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence

from audit.paging import Document
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Publisher

# Indexes in, {size, checkpoint, items: [{index, leaf_hash, proof}]} out.
MOST_AT_ONCE = 4
Prove = Callable[[Sequence[int]], Awaitable[Document]]


def prover(proofs: Proofs, publisher: Publisher) -> Prove:
    turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def prove(indexes: Sequence[int]) -> Document:
        published = await publisher.newest()
        if published is None or published.checkpoint.size <= max(indexes, default=-1):
            published = await publisher.current()
        size = published.checkpoint.size
        async with turns:
            found = await (await proofs.paths(size)).of(indexes)
        items = [
            {
                "index": one.index,
                "leaf_hash": one.leaf_hash.hex(),
                "proof": [b64encode(node).decode() for node in one.path],
            }
            for one in found
        ]
        return {"size": size, "checkpoint": published.note, "items": items}

    return prove
