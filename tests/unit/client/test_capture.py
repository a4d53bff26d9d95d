"""What is captured by itself at registration."""

import hashlib
import subprocess
from pathlib import Path

import httpx2
import pytest

from hallmark import Client, HallmarkError, capture


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_commit_and_uncommitted_changes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "remote", "add", "origin", "https://user:secret@git.example.org/team/fraud.git")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert capture.git(tmp_path) == ("https://git.example.org/team/fraud.git", commit, False)
    (tmp_path / "train.py").write_text("2")
    assert capture.git(tmp_path)[2] is True


def test_outside_a_repository_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert capture.git(tmp_path) == (None, None, None)


def test_without_git_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert capture.git(tmp_path) == (None, None, None)


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        ("https://token@git.example.org/a.git", "https://git.example.org/a.git"),
        ("git@git.example.org:a.git", "git@git.example.org:a.git"),
        ("/srv/git/a", "/srv/git/a"),
    ],
)
def test_passwords_stay_out_of_the_record(remote: str, kept: str) -> None:
    assert capture.without_password(remote) == kept


def test_the_environment_names_what_is_imported() -> None:
    found = capture.environment()
    assert found.packages["pytest"]
    assert "typer-not-imported" not in found.packages
    assert int(found.hardware["cores"]) > 0


def test_a_data_set_is_known_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n1,2\n")
    found = capture.dataset(file)
    assert found.name == "rows.csv"
    assert found.digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_a_directory_changes_with_any_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.csv").write_text("2")
    (tmp_path / "1.csv").write_text("1")
    first = capture.path_digest(tmp_path)
    assert capture.path_digest(tmp_path) == first
    (tmp_path / "1.csv").rename(tmp_path / "3.csv")
    renamed = capture.path_digest(tmp_path)
    (tmp_path / "3.csv").write_text("3")
    assert len({first, renamed, capture.path_digest(tmp_path)}) == 3


def test_a_bad_onnx_file_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not a model")
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return httpx2.Response(500)

    with pytest.raises(HallmarkError) as caught:
        Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(handler)).register("m", file)
    assert caught.value.code == "invalid-artifact"
    assert str(file) in caught.value.detail
    assert asked == []
