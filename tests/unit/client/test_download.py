"""Downloads: into the cache, into a directory, over a bad line, and never out of where they belong."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from contracts.model import Artifact, ArtifactFile, external_artifact, manifest_digest
from hallmark import HallmarkError
from hallmark.download import fetch, obtain
from hallmark.http import Http
from hallmark.results import Pin, PinFile

DATA = bytes(range(256)) * 20_000  # five chunks


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Store(httpx2.BaseTransport):
    """Objects by the last part of the address. `cut`: how many bytes each further connection lives for."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.asked: list[tuple[str, str | None]] = []
        self.cut: list[int] = []
        self.ranges = True
        self.status = 200

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.rsplit("/", 1)[-1]
        wanted = request.headers.get("range")
        self.asked.append((name, wanted))
        if self.status != 200:
            return httpx2.Response(self.status)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        body = self.objects[name][start:]
        return httpx2.Response(206 if start else 200, stream=_Cut(body, self.cut.pop(0) if self.cut else None))


class _Cut(httpx2.SyncByteStream):
    def __init__(self, data: bytes, cut: int | None) -> None:
        self._data = data
        self._cut = cut

    def __iter__(self) -> Iterator[bytes]:
        yield self._data[: self._cut]
        if self._cut is not None:
            raise httpx2.ReadError("the line broke")


def http_to(store: Store) -> Http:
    return Http(timeout=5, retry_for=0, transport=store, user_agent="test")


def pin_of(artifact: Artifact, /, **names: str) -> Pin:
    """`names`: path -> object."""
    files = tuple(
        PinFile(path=f.path, digest=f.digest, size=f.size, url=f"http://s/{names[f.path]}")
        for f in artifact.parts()
        if f.path in names
    )
    return Pin(
        workspace="default",
        model="m",
        version=1,
        stage="Production",
        digest=digest_of(b"content"),
        artifact=artifact,
        files=files,
    )


def tree_of(**files: bytes) -> Artifact:
    parts = tuple(ArtifactFile(path=p, digest=digest_of(d), size=len(d)) for p, d in sorted(files.items()))
    total = sum(part.size for part in parts)
    return Artifact(digest=manifest_digest(parts), size=total, filename="model", files=parts)


def test_a_broken_line_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    store = Store(o=DATA)
    store.cut = [2_000_000, 1_500_000]
    heard: list[int] = []
    target = fetch(http_to(store), "http://s/o", digest_of(DATA), tmp_path / "t", heard.append)
    assert target.read_bytes() == DATA
    assert store.asked == [("o", None), ("o", "bytes=1048576-"), ("o", "bytes=2097152-")]
    assert sum(heard) == len(DATA)


def test_a_store_without_ranges_starts_again(tmp_path: Path) -> None:
    store = Store(o=DATA)
    store.cut, store.ranges = [2_000_000], False
    heard: list[int] = []
    assert fetch(http_to(store), "http://s/o", digest_of(DATA), tmp_path / "t", heard.append).read_bytes() == DATA
    assert sum(heard) == len(DATA)


def test_a_line_that_stays_broken_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(o=DATA)
    store.cut = [1] * 10
    with pytest.raises(HallmarkError) as caught:
        fetch(http_to(store), "http://s/o", digest_of(DATA), tmp_path / "t")
    assert caught.value.code == "connection"
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_are_not_used(tmp_path: Path) -> None:
    with pytest.raises(HallmarkError) as caught:
        fetch(http_to(Store(o=b"evil")), "http://s/o", digest_of(DATA), tmp_path / "t")
    assert caught.value.code == "digest-mismatch"
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_of_the_store_has_its_status(tmp_path: Path) -> None:
    store = Store()
    store.status = 403
    with pytest.raises(HallmarkError) as caught:
        fetch(http_to(store), "http://s/o", digest_of(DATA), tmp_path / "t")
    assert (caught.value.code, caught.value.status) == ("download-failed", 403)


def test_a_directory_comes_into_the_cache_and_is_verified_there(tmp_path: Path) -> None:
    artifact = tree_of(**{"a": b"one", "sub/b": b"two", "sub/same": b"one"})
    store = Store(o1=b"one", o2=b"two")
    pin = pin_of(artifact, **{"a": "o1", "sub/b": "o2", "sub/same": "o1"})
    root = obtain(http_to(store), pin, tmp_path)
    assert (root / "sub" / "same").read_bytes() == b"one"
    assert sorted(name for name, _ in store.asked) == ["o1", "o2"]
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_bytes(b"rubbish")
    (root / "sub" / "b").write_bytes(b"rotten")
    assert obtain(http_to(store), pin, tmp_path) == root
    assert (root / "sub" / "b").read_bytes() == b"two"
    assert not (root / "__pycache__" / "x.pyc").exists()
    # Another version that holds a file of this one does not fetch it again.
    store.asked.clear()
    obtain(http_to(store), pin_of(tree_of(c=b"two"), c="o2"), tmp_path)
    assert store.asked == []


def test_a_cache_is_enough_without_addresses(tmp_path: Path) -> None:
    artifact = tree_of(a=b"one")
    obtain(http_to(Store(o=b"one")), pin_of(artifact, a="o"), tmp_path)
    assert obtain(http_to(Store()), pin_of(artifact), tmp_path).is_dir()
    with pytest.raises(HallmarkError) as caught:
        obtain(http_to(Store()), pin_of(tree_of(a=b"other")), tmp_path)
    assert caught.value.code == "no-download"


def test_a_directory_of_the_user_is_never_mixed(tmp_path: Path) -> None:
    cache, mine = tmp_path / "cache", tmp_path / "mine"
    one = pin_of(tree_of(a=b"one", b=b"two"), a="o1", b="o2")
    http = http_to(Store(o1=b"one", o2=b"two"))
    root = obtain(http, one, cache, mine)
    assert root == mine / "model"
    (root / "a").unlink()
    assert (obtain(http, one, cache, mine) / "a").read_bytes() == b"one"
    (root / "notes.txt").write_text("mine")
    with pytest.raises(HallmarkError, match=r"notes\.txt") as caught:
        obtain(http, one, cache, mine)
    assert caught.value.code == "unexpected-files"
    assert (root / "notes.txt").read_text() == "mine"


def test_a_file_of_the_user_may_be_changed_without_harm_to_the_cache(tmp_path: Path) -> None:
    pin = pin_of(tree_of(a=b"one"), a="o")
    http = http_to(Store(o=b"one"))
    kept = obtain(http, pin, tmp_path / "cache")
    with (obtain(http, pin, tmp_path / "cache", tmp_path / "mine") / "a").open("ab") as file:
        file.write(b" more")
    assert (kept / "a").read_bytes() == b"one"


def test_a_link_in_the_way_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "mine" / "model"
    root.mkdir(parents=True)
    (root / "sub").symlink_to(outside, target_is_directory=True)
    pin = pin_of(tree_of(**{"sub/a": b"one"}), **{"sub/a": "o"})
    with pytest.raises(HallmarkError) as caught:
        obtain(http_to(Store(o=b"one")), pin, tmp_path / "cache", tmp_path / "mine")
    assert caught.value.code in ("unsafe-path", "unexpected-files")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "C:\\x", "a\\..\\b"])
def test_a_path_that_steps_out_is_no_path_at_all(name: str) -> None:
    with pytest.raises(ValueError, match="path"):
        tree_of(**{name: b"x"})


@pytest.mark.parametrize("name", ["../../x", "..", "/etc/x"])
def test_the_name_of_an_artifact_cannot_step_out_either(tmp_path: Path, name: str) -> None:
    artifact = Artifact(digest=digest_of(b"one"), size=3, filename=name)
    pin = pin_of(artifact, **{artifact.parts()[0].path: "o"})
    target = obtain(http_to(Store(o=b"one")), pin, tmp_path / "cache", tmp_path / "mine")
    assert target.parent == tmp_path / "mine"
    tree = tree_of(a=b"one").model_copy(update={"filename": name})
    target = obtain(http_to(Store(o=b"one")), pin_of(tree, a="o"), tmp_path / "cache", tmp_path / "mine2")
    assert target.parent == tmp_path / "mine2"


def test_what_stays_outside_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(HallmarkError, match="stays at runs:/1/model") as caught:
        obtain(http_to(Store()), pin_of(external_artifact("runs:/1/model")), tmp_path)
    assert caught.value.code == "artifact-external"
