"""Uploads and downloads through the registry's routes and a real store; the service's memory stays where it is."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.integration.registry.artifact_support import registry_database
from tests.support.waiting import until_now

from contracts.model import Artifact
from embedded import s3
from embedded.fixtures import S3, new_bucket
from embedded.ports import free_port
from hallmark import Client, HallmarkError
from hallmark.connection import read
from hallmark.results import Pin
from registry.places import blob_key

MIB = 1 << 20
ROOT = Path(__file__).parents[3]
LARGE = (2 << 30) if os.environ.get("HALLMARK_TEST_LARGE") == "1" else 256 * MIB


class Service:
    """The registry's part, in a process of its own."""

    def __init__(self, url: str, bucket: str, server: S3) -> None:
        self.url = url
        self.raw = s3.client(server.endpoint, server.access_key, server.secret_key)
        self.bucket = bucket

    def register(self, client: Client, artifact: Artifact) -> Pin:
        """Settles the uploads as verification does, and gives the way to the result."""
        body = {"artifact": artifact.model_dump(mode="json")}
        version = client._call("registry", "POST", "/v1/test/versions", json=body, patience=300).json()["version"]
        return self.resolve(client, version)

    def resolve(self, client: Client, version: int) -> Pin:
        return read(Pin, client._get("registry", "/v1/models/m/resolve", version=version))

    def objects(self) -> set[str]:
        return {found.object_name for found in self.raw.list_objects(self.bucket, recursive=True)}


@pytest.fixture(scope="module")
def service(infra_postgres: str, infra_s3: S3) -> Iterator[Service]:
    with registry_database(infra_postgres) as database, new_bucket(infra_s3) as bucket:
        port = free_port(())
        given = {
            "DATABASE_URL": database,
            "S3_ENDPOINT": infra_s3.endpoint,
            "S3_ACCESS_KEY": infra_s3.access_key,
            "S3_SECRET_KEY": infra_s3.secret_key,
            "S3_BUCKET": bucket,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.uploads", str(port)], cwd=ROOT, env={**os.environ, **given}
        )
        try:
            url = f"http://127.0.0.1:{port}"
            with Client(url, "probe", retry_for=60) as probe:
                assert probe._get("registry", "/pid").json() == process.pid
            yield Service(url, bucket, infra_s3)
        finally:
            process.terminate()
            process.wait(10)


class Line(httpx2.BaseTransport):
    """The real network, where a test may stop a request on its way."""

    def __init__(self) -> None:
        self._real = httpx2.HTTPTransport()
        self._lock = threading.Lock()
        self.puts: list[httpx2.URL] = []
        self.trouble: Callable[[int, httpx2.Request], httpx2.Response | None] = lambda number, request: None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT":
            with self._lock:
                self.puts.append(request.url)
                number = len(self.puts)
            if (answer := self.trouble(number, request)) is not None:
                return answer
        return self._real.handle_request(request)

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def ana(service: Service, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path / "cache"))
    with Client(service.url, "ana", retry_for=3, transport=line) as client:
        yield client


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of five parts."""
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(MIB) * 129)
    return file


def tree(root: Path, *sizes: int) -> Path:
    for number, size in enumerate(sizes):
        path = root / f"dir{number % 2}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return root


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_directory_goes_up_and_comes_back(service: Service, ana: Client, line: Line, tmp_path: Path) -> None:
    source = tree(tmp_path / "model", 0, 1, 5_000, 3 * MIB, 70 * MIB)
    (source / "same").write_bytes((source / "dir0" / "file2").read_bytes())
    heard: list[int] = []
    artifact = ana.upload(source, progress=heard.append)
    assert sum(heard) == artifact.size - 5_000  # the same bytes under two names are sent once
    assert len(line.puts) == 4 + 3
    pin = service.register(ana, artifact)
    kept = ana.download(pin)
    assert content(kept) == content(source)
    assert content(ana.download(pin, tmp_path / "out")) == content(source)
    assert ana.download(pin) == kept


def test_what_the_store_has_is_not_sent_again(service: Service, ana: Client, line: Line, tmp_path: Path) -> None:
    source = tree(tmp_path / "model", 100, 200)
    service.register(ana, ana.upload(source))
    line.puts.clear()
    (source / "new").write_bytes(os.urandom(50))
    artifact = ana.upload(source)
    assert len(line.puts) == 1
    service.register(ana, artifact)
    assert {blob_key(file.digest) for file in artifact.files} <= service.objects()


def test_a_failed_upload_is_resumed(service: Service, ana: Client, line: Line, large: Path) -> None:
    def broken(number: int, request: httpx2.Request) -> httpx2.Response | None:
        if number > 2:
            raise httpx2.ConnectError("the network is gone")
        return None

    line.trouble = broken
    with pytest.raises(HallmarkError) as caught:
        ana.upload(large)
    assert caught.value.code == "connection"
    line.trouble = lambda number, request: None
    line.puts.clear()
    artifact = ana.upload(large)
    assert len(line.puts) == 3
    assert ana.download(service.register(ana, artifact)).read_bytes() == large.read_bytes()


def test_a_killed_client_is_resumed_by_another_process(service: Service, large: Path, ana: Client, line: Line) -> None:
    script = (
        "import sys, time, hallmark\n"
        "hallmark.Client(sys.argv[1], 'ana').upload(sys.argv[2], progress=lambda sent: time.sleep(0.02))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, service.url, str(large)]) as client:
        stored = until_now(lambda: len(parts) if len(parts := stored_parts(service)) >= 2 else None)
        client.kill()
    artifact = ana.upload(large)
    assert len(line.puts) <= 5 - stored  # fewer, when the store had a part by then that was on its way at the kill
    assert ana.download(service.register(ana, artifact)).read_bytes() == large.read_bytes()


def stored_parts(service: Service) -> list[Any]:
    uploads = service.raw._list_multipart_uploads(service.bucket, prefix="uploads/").uploads
    return [
        part
        for upload in uploads
        for part in service.raw._list_parts(service.bucket, upload.object_name, upload.upload_id or "").parts
    ]


def test_a_part_is_tried_again_alone(service: Service, ana: Client, line: Line, large: Path) -> None:
    failing: dict[int, Exception | httpx2.Response] = {2: httpx2.ReadError("cut"), 4: httpx2.Response(503)}

    def trouble(number: int, request: httpx2.Request) -> httpx2.Response | None:
        found = failing.pop(number, None)
        if isinstance(found, Exception):
            raise found
        return found

    line.trouble = trouble
    heard: list[int] = []
    artifact = ana.upload(large, progress=heard.append)
    assert len(line.puts) == 5 + 2
    assert sum(heard) == artifact.size
    assert ana.download(service.register(ana, artifact)).read_bytes() == large.read_bytes()


def test_addresses_that_expired_are_asked_for_again(service: Service, ana: Client, line: Line, large: Path) -> None:
    line.trouble = lambda number, request: httpx2.Response(403) if number in (2, 3) else None
    artifact = ana.upload(large)
    assert len(line.puts) == 5 + 2
    assert service.register(ana, artifact).artifact == artifact


def test_a_store_that_takes_nothing_is_an_error(ana: Client, line: Line, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(10))
    line.trouble = lambda number, request: httpx2.Response(507)
    with pytest.raises(HallmarkError, match="507") as caught:
        ana.upload(tmp_path / "f")
    assert caught.value.code == "upload-failed"
    assert len(line.puts) == 3


def test_a_file_that_changes_on_the_way_is_refused(service: Service, ana: Client, line: Line, tmp_path: Path) -> None:
    file = tmp_path / "f"

    def change(to: bytes) -> Callable[[int, httpx2.Request], None]:
        def trouble(number: int, request: httpx2.Request) -> None:
            file.write_bytes(to)

        return trouble

    for data, other in ((b"one", b"two"), (b"long", b"no"), (b"less", b"longer")):
        file.write_bytes(data)
        line.trouble = change(other)
        with pytest.raises(HallmarkError) as caught:
            ana.upload(file)
        assert caught.value.code == "file-changed"


def test_many_clients_with_the_same_bytes(service: Service, large: Path, ana: Client) -> None:
    def upload(name: str) -> Artifact:
        with Client(service.url, name, retry_for=10) as client:
            return client.upload(large)

    with ThreadPoolExecutor(4) as pool:
        artifacts = list(pool.map(upload, ["ana", "ana", "ana", "ben"]))
    assert len({artifact.digest for artifact in artifacts}) == 1
    assert ana.download(service.register(ana, artifacts[0])).read_bytes() == large.read_bytes()


def test_expired_download_addresses_are_renewed(service: Service, ana: Client, tmp_path: Path) -> None:
    source = tree(tmp_path / "model", 10, 20)
    pin = service.register(ana, ana.upload(source))
    stale = tuple(file.model_copy(update={"url": f"{file.url}0"}) for file in pin.files)  # a wrong signature: 403 too
    assert content(ana.download(pin.model_copy(update={"files": stale}))) == content(source)


def test_bad_questions_are_refused(service: Service) -> None:
    digest = "sha256:" + "0" * 64
    with httpx2.Client(base_url=service.url) as http:
        questions: list[dict[str, Any]] = [
            {"files": []},
            {"files": [{"digest": "sha1:00", "size": 1}]},
            {"files": [{"digest": digest, "size": -1}]},
            {"files": [{"digest": digest, "size": 6 << 40}]},
            {"files": [{"digest": digest, "size": 1}, {"digest": digest, "size": 2}]},
            {"files": [{"digest": digest, "size": 1}] * 2_001},
        ]
        for body in questions:
            answer = http.post("/v1/artifacts", json=body)
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        body = {"digest": digest, "size": 1 << 30, "upload_id": "nonsense/../x"}
        assert http.post("/v1/artifacts/complete", json=body).status_code == 409


def test_hundreds_of_files_in_one_question(ana: Client, tmp_path: Path, line: Line) -> None:
    source = tree(tmp_path / "many", *([7] * 400))
    artifact = ana.upload(source)
    assert len(line.puts) == 400
    assert len(artifact.files) == 400


@pytest.mark.timeout(900)
def test_a_large_artifact_in_constant_memory(service: Service, ana: Client, tmp_path: Path) -> None:
    """256 MiB; 2 GiB with HALLMARK_TEST_LARGE=1. Up, settled, and back, with the service's peak memory watched."""
    file = tmp_path / "large.bin"
    block = os.urandom(MIB)
    with file.open("wb") as out:
        for number in range(LARGE // MIB):
            out.write(number.to_bytes(8, "big") + block[8:])
    with httpx2.Client(base_url=service.url) as http:
        process = psutil.Process(http.get("/pid").json())
        peak = Peak(process)
        before = peak.now()
        with peak:
            times = [time.monotonic()]
            artifact = ana.upload(file)
            times.append(time.monotonic())
            pin = service.register(ana, artifact)
            times.append(time.monotonic())
            kept = ana.download(pin)
            times.append(time.monotonic())
    assert kept.stat().st_size == LARGE == artifact.size
    grown = (peak.highest - before) / MIB
    spans = [round(end - start, 1) for start, end in pairwise(times)]
    print(f"{LARGE // MIB} MiB: up {spans[0]} s, settled {spans[1]} s, down {spans[2]} s; memory grew {grown:.0f} MiB")
    assert grown < 50
    kept.unlink()
    file.unlink()


class Peak:
    """The highest resident memory of a process, as the kernel counts it where it does."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self.highest = 0

    def now(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.highest = max(self.highest, self.now())

    def __enter__(self) -> "Peak":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self.highest = max(self.highest, self.now())
