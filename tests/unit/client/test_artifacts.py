"""Files and directories as artifacts: what counts, what is refused."""

import errno
import os
import warnings
from pathlib import Path
from typing import NoReturn

import pytest

from contracts.model import DIRECTORY, MAX_FILES, manifest_digest
from hallmark import HallmarkError, artifacts
from hallmark.artifacts import sha256_file, survey


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "my-model"
    (root / "b").mkdir(parents=True)
    (root / "b" / "weights.bin").write_bytes(b"weights")
    (root / "a.json").write_bytes(b"{}")
    (root / ".hidden").write_bytes(b"")
    return root


def code_of(path: Path) -> str:
    with pytest.raises(HallmarkError) as caught:
        survey(path)
    return caught.value.code


def test_a_file_is_an_artifact_without_files(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_bytes(b"{}")
    artifact, (local,) = survey(file)
    assert (artifact.filename, artifact.size, artifact.media_type) == ("model.json", 2, "application/json")
    assert artifact.digest == sha256_file(file) == local.digest
    assert artifact.files == ()
    assert survey(file, "application/x-mine")[0].media_type == "application/x-mine"


def test_a_directory_is_all_its_files_by_path(model: Path) -> None:
    artifact, locals_ = survey(model)
    assert [file.path for file in artifact.files] == [".hidden", "a.json", "b/weights.bin"]
    assert [local.path for local in locals_] == [model / ".hidden", model / "a.json", model / "b" / "weights.bin"]
    assert artifact.digest == manifest_digest(artifact.files)
    assert (artifact.filename, artifact.size, artifact.media_type) == ("my-model", 9, DIRECTORY)


def test_the_order_is_that_of_the_whole_path(tmp_path: Path) -> None:
    for name in ("a/z", "a.b", "a-b", "a0", "B"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(name)
    artifact, _ = survey(tmp_path / "m")
    assert [file.path for file in artifact.files] == ["B", "a-b", "a.b", "a/z", "a0"]


def test_the_same_files_have_the_same_digest_wherever_they_are(model: Path, tmp_path: Path) -> None:
    before = survey(model)[0]
    (tmp_path / "deep").mkdir()
    moved = model.rename(tmp_path / "deep" / "other")
    assert survey(moved)[0].digest == before.digest


def test_the_name_of_the_present_directory_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    assert survey(Path())[0].filename == "my-model"


def test_hashing_is_told(model: Path) -> None:
    heard: list[int] = []
    survey(model, progress=heard.append)
    assert sum(heard) == 9


def test_links_inside_the_directory_count_as_what_they_lead_to(model: Path) -> None:
    (model / "link.bin").symlink_to("b/weights.bin")
    (model / "c").symlink_to("b")
    artifact, _ = survey(model)
    by_path = {file.path: file.digest for file in artifact.files}
    assert by_path["link.bin"] == by_path["c/weights.bin"] == by_path["b/weights.bin"]


def test_links_that_lead_out_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (model / "b" / "link").symlink_to("../../secret")
    assert code_of(model) == "symlink-escapes"
    (model / "b" / "link").unlink()
    (model / "b" / "link").symlink_to(tmp_path, target_is_directory=True)
    assert code_of(model) == "symlink-escapes"


def test_a_link_to_the_directory_itself_is_allowed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(model, target_is_directory=True)
    assert survey(tmp_path / "current")[0] == survey(model)[0]


def test_loops_and_dead_links_are_refused(model: Path) -> None:
    (model / "b" / "up").symlink_to("..", target_is_directory=True)
    assert code_of(model) == "symlink-loop"
    (model / "b" / "up").unlink()
    (model / "dead").symlink_to("nothing")
    assert code_of(model) == "no-such-file"


def test_what_is_no_file_is_refused(model: Path, tmp_path: Path) -> None:
    os.mkfifo(model / "pipe")
    assert code_of(model) == "special-file"
    os.mkfifo(tmp_path / "alone")
    # Opening it for reading would wait for ever.
    assert code_of(tmp_path / "alone") == "special-file"


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nothing") == "no-such-file"
    (tmp_path / "empty" / "more").mkdir(parents=True)
    with pytest.warns(UserWarning, match="more is not in the artifact"):
        assert code_of(tmp_path / "empty") == "empty-directory"


def test_an_empty_directory_is_not_dropped_silently(model: Path) -> None:
    (model / "assets").mkdir()
    with pytest.warns(UserWarning, match="assets is not in the artifact"):
        survey(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (model / "assets").rmdir()
        survey(model)


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", "x" * 200 + "/" + "y" * 200 + "/" + "z" * 200])
def test_names_that_no_artifact_can_have_are_refused(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("x")
    assert code_of(model) == "invalid-file-name"


def test_a_name_that_is_not_text_is_refused(model: Path) -> None:
    (model / os.fsdecode(b"\xff.bin")).write_text("x")
    assert code_of(model) == "invalid-file-name"


def test_too_many_files_are_refused_before_any_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MAX_FILES):
        (model / f"{number}").touch()
    monkeypatch.setattr(artifacts, "_hash", None)
    assert code_of(model) == "too-many-files"


def test_what_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)  # a file's own mode would not stop root
    with pytest.raises(HallmarkError, match=r"\.hidden: Permission denied") as caught:
        survey(model)
    assert caught.value.code == "unreadable-file"


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    _, (local,) = survey(file)
    local.check()
    file.write_bytes(b"two and more")
    with pytest.raises(HallmarkError, match="changed") as caught:
        local.check()
    assert caught.value.code == "file-changed"
    file.unlink()
    with pytest.raises(HallmarkError):
        local.check()
