"""What is captured by itself at registration."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import yaml

from contracts.model import Pointer
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
    found = capture.datasets([file])[0]
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


def test_pointers_of_dvc_are_read_and_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.dvc").write_text(
        "outs:\n- md5: 0cc175b9c0f1b6a831c399e269772661\n  size: 1\n  path: rows.csv\n"
    )
    lock = {
        "schema": "2.0",
        "stages": {
            "prepare": {
                "cmd": "prepare.py",
                "deps": [{"path": "raw", "md5": "aa.dir", "nfiles": 2}, {"path": "s3://b/k", "etag": "bb"}],
                "outs": [{"path": "clean.csv", "md5": "cc"}],
            },
            "train": {
                "cmd": "train.py",
                "deps": [{"path": "clean.csv", "md5": "cc"}, {"path": "raw", "md5": "aa.dir"}],
            },
        },
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    found = capture.datasets([tmp_path / "rows.csv.dvc", tmp_path / "dvc.lock"])
    assert [(one.name, one.version, one.digest) for one in found] == [
        ("rows.csv", "md5:0cc175b9c0f1b6a831c399e269772661", None),
        ("raw", "md5:aa.dir", None),
        ("s3://b/k", "etag:bb", None),
    ]


@pytest.mark.parametrize("text", ["", "- a", "outs: 1", "outs:\n- path: x", "outs: [a", "outs:\n- md5: a"])
def test_what_is_no_pointer_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.dvc"
    file.write_text(text)
    with pytest.raises(HallmarkError, match=r"x\.dvc") as caught:
        capture.datasets([file])
    assert caught.value.code == "invalid-dataset"


def test_a_data_set_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HallmarkError, match="gone"):
        capture.datasets([tmp_path / "gone.csv"])


def test_the_run_that_it_is_called_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert capture.run() is None
    monkeypatch.setenv("WANDB_RUN_ID", "w1")
    assert capture.run() == Pointer(system="wandb", id="w1")
    current = SimpleNamespace(id="w2", path="team/fraud/w2", url="https://wandb.example.org/team/fraud/runs/w2")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=current))
    assert capture.run() == Pointer(system="wandb", id="team/fraud/w2", url=current.url)
    import mlflow

    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "file:///runs")
    run = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    monkeypatch.setattr(mlflow, "active_run", lambda: run)
    assert capture.run() == Pointer(system="mlflow", id="r1"), "a tracker on this disk has no address"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://user:secret@tracker.example.org")
    assert capture.run() == Pointer(system="mlflow", id="r1", url="https://tracker.example.org")
