"""Tiles and bundles: their paths, and which of them a tree has."""

import pytest

from audit import merkle
from audit.tlog import tiles
from audit.tlog.tiles import Tile


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 999, 1), "tile/0/999.p/1"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # the example of the specification
        (Tile(-1, 273, 112), "tile/entries/273.p/112"),
        (Tile(63, 2**63 - 1, 255), "tile/63/x009/x223/x372/x036/x854/x775/807.p/255"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert tiles.parse(path.removeprefix("tile/")) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("", "0", "0/", "0/1", "0/0000", "00/001", "64/001", "-1/001", "0/x000/001", "0/x001", "0/001.p/0"),
        *("0/001.p/256", "0/001.p/01", "0/001.p/-1", "0/001.p/", "0/001/p/1", "entries/001.P/1", "Entries/001"),
        *("0/001 ", " 0/001", "0/../001", "0/001\n", "entries/x009/x223/x372/x036/x854/x775/808", "checkpoint"),
        "0/\u0660\u0660\u0661",
    ],
)
def test_only_the_one_right_spelling_is_a_tile(path: str) -> None:
    assert tiles.parse(path) is None


def test_the_tree_of_the_specifications_example() -> None:
    """70,000 entries: 273 full level 0 tiles, one of 112, one full level 1 tile, one of 17, one level 2 tile of 1."""
    found = list(tiles.grown(0, 70_000))
    by_level = {level: [t for t in found if t.level == level] for level in (-1, 0, 1, 2)}
    assert [len(by_level[level]) for level in (-1, 0, 1, 2)] == [274, 274, 2, 1]
    assert [by_level[level][-1] for level in (0, 1, 2)] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles.grown(0, 256)) == [Tile(-1, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles.grown(0, 0)) == []


@pytest.mark.parametrize("step", [1, 3, 100, 255, 256, 257, 1000])
def test_step_by_step_a_tree_gets_every_tile_that_its_sizes_need(step: int) -> None:
    have: set[Tile] = set()
    for size in range(0, 140_000 if step > 50 else 1_000, step):
        new = list(tiles.grown(max(size - step, 0), size))
        assert not have & set(new), "a tile was made twice"
        have |= set(new)
        for level in range(-1, 3):
            full, rest = divmod(size >> (8 * max(level, 0)), 256)
            assert not rest or Tile(level, full, rest) in have
            assert not full or Tile(level, full - 1) in have


def test_a_bundle_gives_its_entries_back() -> None:
    entries = [b"", b"a", b"x" * 65_535, b"\x00\xff"]
    assert tiles.entries_of(tiles.bundle(entries)) == entries
    with pytest.raises(OverflowError):
        tiles.bundle([b"x" * 65_536])
    for cut in (1, 2, 5):
        with pytest.raises(ValueError, match="cut off"):
            tiles.entries_of(tiles.bundle([b"abc", b"defg"])[:-cut])


def test_the_frontier_gives_the_root_of_every_full_tile() -> None:
    hashes = [merkle.leaf_hash(str(n).encode()) for n in range(66_000)]
    tree, nodes = merkle.Frontier(), list[merkle.Node]()
    for start in range(0, len(hashes), 777):
        nodes += tree.extend(hashes[start : start + 777])
    assert tree.root() == merkle.root_of(hashes)
    by_level = {level: [node.hash for node in nodes if node.level == level] for level in (1, 2)}
    assert len(by_level[1]) == 257
    assert by_level[1] == [merkle.root_of(hashes[n * 256 : (n + 1) * 256]) for n in range(257)]
    assert by_level[2] == [merkle.root_of(hashes[:65_536])]
    assert [node.number for node in nodes if node.level == 1] == list(range(257))
