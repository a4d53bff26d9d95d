"""The stand-alone verifier on a copy of the whole log: it runs alone, finds every change, names it, and ends."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from tests.support.foreign import go_log
from tests.support.tlog_copy import leaf_hash, note_of, root_of, tile_path, vkeys, write_copy

from audit import out

VERIFIER = Path(out.__file__).with_name("verify_bundle.py")
SIZE = 256 * 256 + 256 + 70  # two full tiles of level 1's making, a partial one at each level
LEAVES = [b"entry %d" % n for n in range(SIZE)]
Change = Callable[[Path], object]


def run(*arguments: object, cwd: Path) -> tuple[int, str]:
    """As an auditor runs it, somewhere without any of our packages. An endless run is a failure."""
    shutil.copy(VERIFIER, cwd / "verifier.py")
    done = subprocess.run(
        [sys.executable, "-I", "verifier.py", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    write_copy(directory, LEAVES)
    return directory


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


def keys(directory: Path) -> Path:
    (directory / "keys").write_text("\n".join(vkeys()) + "\n")
    return directory / "keys"


def since(directory: Path, size: int, root: bytes | None = None) -> Path:
    root = root_of([leaf_hash(leaf) for leaf in LEAVES[:size]]) if root is None else root
    (directory / "old").write_text(note_of(size, root), encoding="utf-8")
    return directory / "old"


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: at % len(data)] + bytes([data[at % len(data)] ^ 1]) + data[at % len(data) + 1 :]


def flipped(level: str, number: int, width: int, at: int) -> Change:
    return lambda log: edit(tile_path(log, level, number, width), flip(at))


def gone(level: str, number: int, width: int) -> Change:
    return lambda log: tile_path(log, level, number, width).unlink()


def noted(change: Callable[[str], str]) -> Change:
    return lambda log: edit(log / "checkpoint", lambda data: change(data.decode()).encode())


def rewritten(leaves: list[bytes]) -> Change:
    """Another history with all its tiles, under the true checkpoint."""

    def change(log: Path) -> None:
        note = (log / "checkpoint").read_text(encoding="utf-8")
        shutil.rmtree(log / "tile")
        write_copy(log, leaves)
        (log / "checkpoint").write_text(note, encoding="utf-8")

    return change


def swapped(log: Path) -> None:
    edit(tile_path(log, "entries", 0, 256), lambda d: d.replace(b"entry 7\0", b"entry X\0").replace(b"entry 8\0", b"entry 7\0").replace(b"entry X\0", b"entry 8\0"))  # fmt: skip  # noqa: E501


def line_of(note: str, number: int, text: str) -> str:
    lines = note.split("\n")
    lines[number] = text
    return "\n".join(lines)


LAST, ENTRY = SIZE // 256, 256 * 256  # the number of the last tile, and its second-last's first entry
OTHER = note_of(SIZE, bytes(32))
CHANGES: dict[str, tuple[Change, str]] = {
    "a byte of a leaf": (flipped("entries", 3, 256, 10), "entry 768:"),
    "a length": (flipped("entries", 3, 256, 1), "entry 768:"),
    "the last length": (flipped("entries", LAST, 70, -len(LEAVES[-1]) - 1), f"entry {SIZE - 1}:"),
    "a length beyond all": (flipped("entries", 3, 256, 0), "entry 768:"),
    "a byte of the first leaf": (flipped("entries", 0, 256, 5), "entry 0:"),
    "a byte of the last leaf": (flipped("entries", LAST, 70, -1), f"entry {SIZE - 1}:"),
    "the last tile": (flipped("0", LAST, 70, -1), f"entry {SIZE - 1}:"),
    "the second-last tile": (flipped("0", LAST - 1, 256, 0), f"entry {ENTRY}:"),
    "the second-last bundle": (flipped("entries", LAST - 1, 256, 3), f"entry {ENTRY}:"),
    "a hash in a tile": (flipped("0", 200, 256, 32 * 17 + 4), f"entry {200 * 256 + 17}:"),
    "a full tile of level 1": (flipped("1", 0, 256, 0), "entry 0:"),
    "a partial tile of level 1": (flipped("1", 1, 1, 0), f"entry {ENTRY}:"),
    "a tile of level 2": (flipped("2", 0, 1, 0), "entry 0:"),
    "swapped entries": (swapped, "entry 7:"),
    "a truncated tail": (lambda log: edit(tile_path(log, "entries", LAST, 70), lambda d: d[:-9]), f"entry {SIZE - 1}:"),
    "a truncated tile": (lambda log: edit(tile_path(log, "0", LAST, 70), lambda d: d[:-32]), f"entry {SIZE - 1}:"),
    "a longer tile": (lambda log: edit(tile_path(log, "0", LAST, 70), lambda d: d + d[:32]), "entry "),
    "a longer bundle": (lambda log: edit(tile_path(log, "entries", 9, 256), lambda d: d + b"\0\0"), "entry 2559:"),
    "no last bundle": (gone("entries", LAST, 70), "is missing"),
    "no second-last bundle": (gone("entries", LAST - 1, 256), "is missing"),
    "no last tile": (gone("0", LAST, 70), "is missing"),
    "no tile of level 2": (gone("2", 0, 1), "is missing"),
    "no checkpoint": (lambda log: (log / "checkpoint").unlink(), "missing"),
    "a tile too many": (lambda log: (log / "tile" / "0" / "999").write_bytes(bytes(32)), "not under the checkpoint"),
    "one history for another": (rewritten([*LEAVES[:100], b"lie", *LEAVES[101:]]), "do not add up"),
    "one entry less": (rewritten(LEAVES[:-1]), "is missing or has more"),
    "a smaller size": (noted(lambda note: line_of(note, 1, str(SIZE - 1))), "is wrong"),
    "an endless size": (noted(lambda note: line_of(note, 1, "9" * 18)), "is wrong"),
    "another spelling of the size": (noted(lambda note: line_of(note, 1, f"0{SIZE}")), "malformed"),
    "another root": (noted(lambda note: line_of(note, 2, OTHER.split("\n")[2])), "is wrong"),
    "another origin": (noted(lambda note: line_of(note, 0, "elsewhere")), "another log"),
    "an extension line": (noted(lambda note: note.replace("\n\n", "\nmore\n\n")), "is wrong"),
    "the Ed25519 signature of another": (noted(lambda note: line_of(note, 4, OTHER.split("\n")[4])), "is wrong"),
    "the ML-DSA signature of another": (noted(lambda note: line_of(note, 5, OTHER.split("\n")[5])), "is wrong"),
    "no Ed25519 signature": (noted(lambda note: note.replace(note.split("\n")[4] + "\n", "")), "not signed"),
    "no ML-DSA signature": (noted(lambda note: note.replace(note.split("\n")[5] + "\n", "")), "not signed"),
    "no signature": (noted(lambda note: note.split("\n\n")[0] + "\n\n"), "malformed"),
    "nothing": (noted(lambda note: ""), "malformed"),
}


def test_a_good_copy_is_verified(good: Path, tmp_path: Path) -> None:
    code, said = run("--log", good, "--key", keys(tmp_path), cwd=tmp_path)
    assert (code, said) == (0, f"OK: log hallmark.example/log/test of {SIZE} entries\n")
    assert go_log(good, vkeys()[:1])["size"] == SIZE


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513])
def test_a_log_of_any_size_is_verified(size: int, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    write_copy(tmp_path / "log", LEAVES[:size])
    assert run("--log", "log", "--key", keys(tmp_path), cwd=tmp_path)[0] == 0
    assert go_log(tmp_path / "log", vkeys()[:1])["size"] == size


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_found_and_named(what: str, copy: Path, tmp_path: Path) -> None:
    change, told = CHANGES[what]
    change(copy)
    code, said = run("--log", copy, "--key", keys(tmp_path), cwd=tmp_path)
    assert code == 1
    assert said.startswith("NOT VERIFIED: ")
    assert told in said


@pytest.mark.parametrize("what", [what for what in CHANGES if "ML-DSA" not in what])
def test_every_change_is_found_by_a_verifier_that_is_not_ours(what: str, copy: Path) -> None:
    """Go's tlog, which knows no ML-DSA."""
    CHANGES[what][0](copy)
    with pytest.raises(ValueError, match=r"\w"):
        go_log(copy, vkeys()[:1])


@pytest.mark.parametrize("size", [0, 1, 300, SIZE - 1, SIZE])
def test_a_copy_extends_the_checkpoint_that_was_kept(size: int, good: Path, tmp_path: Path) -> None:
    given = ("--log", good, "--key", keys(tmp_path))
    assert run(*given, "--since", since(tmp_path, size), cwd=tmp_path)[0] == 0
    code, said = run(*given, "--since", since(tmp_path, size, root_of([b"1" * 32])), cwd=tmp_path)
    assert code == 1
    assert "not those that you knew" in said


def test_a_rewritten_copy_is_told_before_or_behind_the_checkpoint_that_was_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    write_copy(log, LEAVES[:300])
    rewritten([*LEAVES[:100], b"lie", *LEAVES[101:300]])(log)
    given = ("--log", "log", "--key", keys(tmp_path), "--since")
    assert "the first 200 entries are not" in run(*given, since(tmp_path, 200), cwd=tmp_path)[1]
    assert "the entries from 100 on do not add up" in run(*given, since(tmp_path, 100), cwd=tmp_path)[1]


def test_a_replayed_old_checkpoint_is_found(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    write_copy(tmp_path / "log", LEAVES[:300])
    code, said = run("--log", "log", "--key", keys(tmp_path), "--since", since(tmp_path, 301), cwd=tmp_path)
    assert (code, said) == (1, "NOT VERIFIED: entry 300 is missing: your checkpoint has 301 entries\n")


def test_narrow_tiles_of_before_are_compared_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    write_copy(log, LEAVES[:100])
    write_copy(log, LEAVES[:300])
    given = ("--log", "log", "--key", keys(tmp_path))
    assert run(*given, cwd=tmp_path)[0] == 0
    assert go_log(log, vkeys()[:1])["size"] == 300
    edit(tile_path(log, "entries", 0, 100), flip(-1))
    with pytest.raises(ValueError, match="entry 99 in"):
        go_log(log, vkeys()[:1])
    assert "entry 99:" in run(*given, cwd=tmp_path)[1]


def test_only_the_given_keys_count(good: Path, tmp_path: Path) -> None:
    strangers = vkeys(Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
    for key in (strangers[0], "\n".join([vkeys()[0], strangers[1]]), "", "no key", vkeys()[0][:-4] + "AAA="):
        (tmp_path / "key").write_text(key)
        assert run("--log", good, "--key", "key", cwd=tmp_path)[0] == 1, key
    assert run("--log", good, "--key", vkeys()[0], cwd=tmp_path)[0] == 0


def test_it_is_short_and_stands_alone() -> None:
    text = VERIFIER.read_text()
    assert len(text.splitlines()) < 200
    tree = list(ast.walk(ast.parse(text)))
    imports = {alias.name.split(".")[0] for node in tree if isinstance(node, ast.Import) for alias in node.names}
    imports |= {(node.module or ".").split(".")[0] for node in tree if isinstance(node, ast.ImportFrom)}
    assert imports <= sys.stdlib_module_names | {"cryptography"}
