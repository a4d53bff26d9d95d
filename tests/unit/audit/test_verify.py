"""The offline verifier: every change of an export is found, named where it can be, and soon."""

import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle, verify
from audit.note import Signer
from audit.verify import Report, verify_export
from hallmark import verify as clients

ORIGIN = "hallmark.example/log/test"
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
SIZE = 11
LEAVES = [b"hallmark-leaf/1\n{}\nentry %d" % n for n in range(SIZE)]
Lines = list[bytes]


def line(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def note(size: int, signer: Signer = SIGNER) -> str:
    return signer.sign(size, merkle.root_of([merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]))


def header(size: int, signer: Signer = SIGNER) -> bytes:
    signed = note(size, signer)
    return line({"origin": signer.name, "size": size, "root": signed.split("\n")[2], "checkpoint": signed})


def entry(index: int, leaf: bytes) -> bytes:
    digest = merkle.leaf_hash(leaf).hex()
    return line({"index": index, "leaf": b64encode(leaf).decode(), "leaf_hash": digest})


def export(size: int = SIZE) -> Lines:
    return [header(size), *[entry(n, leaf) for n, leaf in enumerate(LEAVES[:size])]]


def check(lines: Lines, since: str | None = None, *, both: bool = True) -> Report:
    """What the verifier says; the client's own, which is another program, must not say otherwise."""
    report = verify_export(lines, SIGNER.vkey, since)
    if both:
        with NamedTemporaryFile() as file:
            file.write(b"".join(lines))
            file.flush()
            try:
                second = clients.verify_export(Path(file.name), SIGNER.vkey, old_checkpoint=since)
            except clients.VerificationError as error:
                assert not report.ok, error
                assert error.index is None or report.index is None or error.index == report.index
            else:
                assert (report.ok, second.size, b64decode(second.root).hex()) == (True, report.size, report.root)
    return report


@pytest.mark.parametrize("size", range(SIZE + 1))
def test_a_true_export_is_verified(size: int) -> None:
    report = check(export(size))
    assert report == Report(True, origin=ORIGIN, size=size, root=report.root)
    assert report.root == merkle.root_of([merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]).hex()


@pytest.mark.parametrize("at", range(SIZE))
def test_any_changed_byte_of_an_entry_is_found_there(at: int) -> None:
    good = export()[at + 1]
    for position in range(len(good)):
        for bit in (1, 2, 32, 128):
            bent = bytearray(good)
            bent[position] ^= bit
            lines = export()
            # A byte that becomes a newline, or stops being one, moves the borders between lines.
            lines[at + 1] = bytes(bent)
            report = check(b"".join(lines).splitlines(keepends=True), both=position % 16 == 0)
            assert not report.ok, (position, bit)
            assert report.index == at, (position, bit, report)


def test_any_changed_byte_of_the_header_is_found() -> None:
    good = export()[0]
    for position in range(len(good)):
        bent = bytearray(good)
        bent[position] ^= 1
        assert not check([bytes(bent), *export()[1:]]).ok, position


@pytest.mark.parametrize("at", range(SIZE))
def test_an_entry_changed_together_with_its_hash_is_found(at: int) -> None:
    lines = export()
    lines[at + 1] = entry(at, LEAVES[at] + b"!")
    report = check(lines)
    assert not report.ok
    assert "do not hash to the root" in report.problem


def placed(width: int) -> Lines:
    """An export whose header has the subtrees."""
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    roots = [b64encode(merkle.root_of(hashes[n : n + width])).decode() for n in range(0, SIZE, width)]
    return [line({**json.loads(header(SIZE)), "subtrees": roots, "width": width}), *export()[1:]]


def client_says(lines: Lines, file: Path) -> tuple[int | None, str]:
    check(lines)
    file.write_bytes(b"".join(lines))
    with pytest.raises(clients.VerificationError) as caught:
        clients.verify_export(file, SIGNER.vkey)
    return caught.value.index, str(caught.value)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_subtrees_show_where_an_entry_was_changed_together_with_its_hash(width: int, tmp_path: Path) -> None:
    assert check(placed(width)).ok
    for at in range(SIZE - 1):
        changed, swapped = placed(width), placed(width)
        changed[at + 1] = entry(at, LEAVES[at] + b"!")
        swapped[at + 1], swapped[at + 2] = entry(at, LEAVES[at + 1]), entry(at + 1, LEAVES[at])
        first = at - at % width
        for lines in (changed, swapped):
            index, said = client_says(lines, tmp_path / "log")
            where = f"entry {at} was" if width == 1 else f"entries {first} to {min(first + width, SIZE) - 1} was"
            assert (index, where in said) == (at if width == 1 else None, True), said


def test_false_subtrees_hide_nothing(tmp_path: Path) -> None:
    good = json.loads(placed(2)[0])
    false: list[dict[str, object]] = [
        {"subtrees": [*good["subtrees"][1:], good["subtrees"][0]]},
        {"subtrees": good["subtrees"][:-1]},
        {"subtrees": [1] * 6},
        {"width": 0},
        {"width": -2},
        {"width": 3},
        {"width": 4},
    ]
    for change in false:
        (tmp_path / "log").write_bytes(b"".join([line({**good, **change}), *export()[1:]]))
        with pytest.raises(clients.VerificationError, match="subtrees"):
            clients.verify_export(tmp_path / "log", SIGNER.vkey)
    bent = [line({**good, **false[0]}), *export()[1:]]
    bent[4] = bent[4].replace(b'"leaf_hash":"', b'"leaf_hash":"0')
    assert client_says(bent, tmp_path / "log")[0] == 3


@pytest.mark.parametrize("at", range(SIZE))
def test_a_removed_entry_is_found_where_it_stood(at: int) -> None:
    lines = export()
    del lines[at + 1]
    report = check(lines)
    assert (report.ok, report.index) == (False, at)


@pytest.mark.parametrize("at", range(SIZE - 1))
def test_swapped_entries_are_found(at: int) -> None:
    lines = export()
    lines[at + 1], lines[at + 2] = lines[at + 2], lines[at + 1]
    report = check(lines)
    assert (report.ok, report.index) == (False, at)
    lines = export()
    lines[at + 1], lines[at + 2] = entry(at, LEAVES[at + 1]), entry(at + 1, LEAVES[at])
    assert not check(lines).ok


@pytest.mark.parametrize("keep", range(SIZE))
def test_a_truncated_tail_is_found(keep: int) -> None:
    report = check(export()[: keep + 1])
    assert (report.ok, report.index) == (False, keep)


def test_a_line_cut_in_the_middle_is_found() -> None:
    whole = b"".join(export())
    for cut in range(0, len(whole) - 1, 7):
        assert not check(whole[:cut].splitlines(keepends=True)).ok
    assert not check(whole[:-1].splitlines(keepends=True)).ok


def test_an_extra_entry_is_found() -> None:
    report = check([*export(), entry(SIZE, b"more")])
    assert (report.ok, report.index) == (False, SIZE)
    report = check([*export(), b"\n"])
    assert not report.ok


def test_an_endless_export_ends() -> None:
    def endless() -> "Callable[[], bytes]":
        lines = iter(export())
        return lambda: next(lines, entry(SIZE, b"more"))

    report = verify_export(iter(endless(), None), SIGNER.vkey)
    assert (report.ok, report.index) == (False, SIZE)


@pytest.mark.parametrize(
    ("bad", "index"),
    [
        (b"", None),
        (b"\n", 0),
        (b"[" * 100_000 + b"\n", 0),
        (b"[]\n", 0),
        (b"null\n", 0),
        (b'{"index":' + b"9" * 5000 + b',"leaf":"","leaf_hash":""}\n', 0),
        (b'{"index":false,"leaf":"","leaf_hash":""}\n', 0),
        (line({"index": 0, "leaf": "", "leaf_hash": "", "more": 1}), 0),
        (line({"index": 0, "leaf": "", "leaf_hash": None}), 0),
        (b"\xff\xfe\n", 0),
    ],
)
def test_garbage_is_refused(bad: bytes, index: int | None) -> None:
    lines = export()
    report = check([lines[0], bad, *lines[2:]])
    assert not report.ok
    assert index is None or report.index == index
    assert not check([bad, *lines[1:]]).ok
    assert not check([]).ok


def test_a_wrong_key_is_refused() -> None:
    other = Signer(ORIGIN, Ed25519PrivateKey.generate())
    elsewhere = Signer("elsewhere.example", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    assert not verify_export(export(), other.vkey).ok
    assert not verify_export(export(), elsewhere.vkey).ok
    assert not verify_export([header(SIZE, other), *export()[1:]], SIGNER.vkey).ok
    with pytest.raises(ValueError, match="key"):
        verify_export(export(), SIGNER.vkey.replace("hallmark", "hallmork"))


def test_a_checkpoint_of_another_size_is_refused() -> None:
    report = check([header(SIZE - 1), *export()[1:]])
    assert (report.ok, report.index) == (False, SIZE - 1)
    document = json.loads(export()[0])
    assert not check([line({**document, "size": SIZE - 1}), *export()[1:]]).ok
    assert not check([line({**document, "origin": "elsewhere"}), *export()[1:]]).ok


@pytest.mark.parametrize("kept", range(SIZE + 1))
def test_an_old_checkpoint_proves_that_the_log_only_grew(kept: int) -> None:
    assert check(export(), since=note(kept)).ok
    forged = SIGNER.sign(kept, merkle.leaf_hash(b"another history"))
    report = check(export(), since=forged)
    assert not report.ok
    assert "do not hash" in report.problem


def test_an_export_older_than_the_kept_checkpoint_is_refused() -> None:
    assert "older" in check(export(4), since=note(5)).problem


def test_the_command_says_so_with_its_exit_status(tmp_path: Path) -> None:
    """As an outsider runs it: the one file, alone, by its path."""
    script = tmp_path / "verifier.py"
    script.write_text(Path(verify.__file__).read_text())
    good, bad, kept = tmp_path / "good", tmp_path / "bad", tmp_path / "kept"
    good.write_bytes(b"".join(export()))
    data = bytearray(good.read_bytes())
    target = data.index(b"leaf_hash", len(export()[0]) + 2 * len(export()[1]))
    data[target + 14] ^= 1
    bad.write_bytes(data)
    kept.write_text(note(3))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-I", str(script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    verified = run(str(good), "--key", SIGNER.vkey, "--since", str(kept))
    assert (verified.returncode, verified.stderr) == (0, "")
    assert f"verified: {SIZE} entries of {ORIGIN}" in verified.stdout
    refused = run(str(bad), "--key", SIGNER.vkey)
    assert refused.returncode == 1
    assert refused.stdout.startswith("REFUSED: entry 2: ")
    assert run(str(tmp_path / "none"), "--key", SIGNER.vkey).returncode == 2
    assert run(str(good), "--key", "nonsense").returncode == 2


def test_the_verifier_stays_one_short_file_without_our_packages() -> None:
    text = Path(verify.__file__).read_text()
    assert len(text.splitlines()) < 200
    imported = {row.split()[1].split(".")[0] for row in text.splitlines() if row.startswith(("import ", "from "))}
    assert imported - sys.stdlib_module_names == {"cryptography"}


def test_base64_has_one_spelling() -> None:
    """`QQ==` and `QR==` decode to the same byte; only the first is taken."""
    leaf = b"A"
    assert b64decode("QR==") == leaf
    root = merkle.leaf_hash(leaf)
    signed = SIGNER.sign(1, root)
    top = line({"origin": ORIGIN, "size": 1, "root": b64encode(root).decode(), "checkpoint": signed})
    assert check([top, entry(0, leaf)]).ok
    bent = line({"index": 0, "leaf": "QR==", "leaf_hash": root.hex()})
    assert check([top, bent]).index == 0
