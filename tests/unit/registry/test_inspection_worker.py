"""The inspecting process: what it downloads, what it answers, and how it is ended."""

import asyncio
import contextlib
import gzip
import hashlib
import http.server
import os
import pickle
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from onnx import TensorProto, helper
from tests.support.waiting import until

from contracts.model import Severity
from kit.errors import Transient
from registry.inspection import Examined, InspectionFailed, Inspector, Job, Limits, Part

MIB = 1 << 20


def small_onnx() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [None, 4])],
        [value("y", TensorProto.FLOAT, [None, 4])],
    )
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


MODEL = small_onnx()
# Millions of opcodes in a few kilobytes: minutes of reading.
ENDLESS = gzip.compress(b"\x80\x04" + b"N0" * 20_000_000 + b"N.", 1)
# Texts of 150 MiB, each short enough to be read.
HUGE = gzip.compress(b"\x80\x04" + (b"X" + MIB.to_bytes(4, "little") + b"a" * MIB) * 150 + b".", 1)


class Store:
    """Stands for the S3 store: gives bytes, or fails as told."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hung = threading.Event()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                store.asked.append(self.path)
                store.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/")
        if name == "hang":
            self.hung.wait(30)
        data = self.blobs.get(name)
        status = int(name) if name.isdecimal() else 404 if data is None else 200
        data = data or b""
        request.send_response(status)
        request.send_header("content-length", str(len(data) + (100 if name == "cut" else 0)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):  # the other side may have had enough
            request.wfile.write(data)
        if name == "cut":
            request.close_connection = True

    def part(self, path: str, data: bytes, url: str | None = None) -> Part:
        """A file that the store holds, under its path's name."""
        name = url or path.replace("/", "-")
        if url is None:
            self.blobs[name] = data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return Part(path=path, url=f"{self.url}/{name}", digest=digest, size=len(data))

    def job(self, path: str, data: bytes) -> Job:
        return Job(parts=(self.part(path, data),))


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    thread = threading.Thread(target=store.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield store
    store.hung.set()
    store.server.shutdown()
    thread.join()
    store.server.server_close()


@pytest_asyncio.fixture
async def inspector(tmp_path: Path) -> AsyncIterator[Inspector]:
    async with Inspector(root=tmp_path) as inspector:
        yield inspector


def server_of(inspector: Inspector) -> psutil.Process:
    assert inspector._server is not None
    return psutil.Process(inspector._server.process.pid)


def homes(root: Path) -> list[Path]:
    return list(root.iterdir())


def scratch_of(root: Path) -> list[Path]:
    return [path for path in root.glob("hallmark-*/*") if path.name != "lock"]


def failure(examined: Examined) -> str:
    (finding,) = examined.inspection.findings
    assert (finding.severity, finding.code) == (Severity.UNSAFE, "inspection-failed")
    return finding.detail


async def test_a_model_is_verified_and_inspected(store: Store, inspector: Inspector, tmp_path: Path) -> None:
    job = store.job("model.onnx", MODEL)
    examined = await inspector.run(job)
    assert [(p.path, p.digest, p.size) for p in examined.parts] == [("model.onnx", job.parts[0].digest, len(MODEL))]
    assert examined.inspection.format == "onnx"
    assert examined.inspection.signature.inputs[0].shape == (None, 4)
    assert scratch_of(tmp_path) == []


async def test_a_small_job_is_fast_once_the_process_is_warm(store: Store, inspector: Inspector) -> None:
    job = store.job("model.onnx", MODEL)
    await inspector.run(job)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        await inspector.run(job)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


async def test_a_pickle_is_not_loaded(store: Store, inspector: Inspector, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    attack = pickle.dumps([1]).replace(b"]\x94K\x01a.", f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    assert b"system" in attack
    examined = await inspector.run(store.job("dir/model.pkl", attack))
    assert examined.inspection.unsafe
    assert not canary.exists()


async def test_what_the_store_holds_is_told(store: Store, inspector: Inspector) -> None:
    other = b"x" * len(MODEL)
    good, wrong = store.part("good.onnx", MODEL), store.part("wrong.onnx", MODEL)
    longer, shorter = store.part("longer.onnx", MODEL), store.part("shorter.onnx", MODEL)
    store.blobs |= {"wrong.onnx": other, "longer.onnx": MODEL + bytes(10 * MIB), "shorter.onnx": MODEL[:5]}
    missing = store.part("missing.onnx", MODEL[:-1], url="no-such-thing")
    examined = await inspector.run(Job(parts=(longer, good, wrong, missing, shorter)))
    found = {part.path: (part.digest, part.size) for part in examined.parts}
    assert found["good.onnx"] == (good.digest, good.size)
    assert found["missing.onnx"] == (None, None)
    assert found["shorter.onnx"] == (f"sha256:{hashlib.sha256(MODEL[:5]).hexdigest()}", 5)
    digest, size = found["longer.onnx"]
    assert digest is None
    assert size is not None
    assert len(MODEL) < size <= 2 * MIB  # it stopped early
    assert examined.inspection.format is None


async def test_wrong_bytes_are_told_by_their_digest(store: Store, inspector: Inspector) -> None:
    job = store.job("model.onnx", MODEL)
    store.blobs["model.onnx"] = b"x" * len(MODEL)
    (part,) = (await inspector.run(job)).parts
    assert part.digest == f"sha256:{hashlib.sha256(b'x' * len(MODEL)).hexdigest()}"


async def test_the_same_bytes_are_fetched_once(store: Store, inspector: Inspector) -> None:
    first = store.part("a/model.onnx", MODEL)
    parts = (first, *(first.model_copy(update={"path": f"{n}/model.onnx", "url": f"{first.url}?{n}"}) for n in "bc"))
    examined = await inspector.run(Job(parts=parts))
    assert [part.path for part in examined.parts] == ["a/model.onnx", "b/model.onnx", "c/model.onnx"]
    assert store.asked == ["/a-model.onnx"]


@pytest.mark.parametrize("answer", ["500", "503", "403", "307", "cut"])
async def test_a_store_in_trouble_is_transient(store: Store, inspector: Inspector, answer: str, tmp_path: Path) -> None:
    store.blobs["cut"] = MODEL[:20]
    with pytest.raises(Transient):
        await inspector.run(Job(parts=(store.part("model.onnx", MODEL, url=answer),)))
    assert scratch_of(tmp_path) == []


async def test_a_store_that_is_away_is_transient(store: Store, inspector: Inspector) -> None:
    part = store.part("model.onnx", MODEL).model_copy(update={"url": "http://127.0.0.1:1/x"})
    with pytest.raises(Transient):
        await inspector.run(Job(parts=(part,)))


async def test_a_store_that_hangs_is_transient(store: Store, tmp_path: Path) -> None:
    async with Inspector(root=tmp_path, limits=Limits(seconds=1.5)) as inspector:
        with pytest.raises(Transient, match="seconds"):
            await inspector.run(Job(parts=(store.part("model.onnx", MODEL, url="hang"),)))
        assert server_of(inspector).children() == []


async def test_a_job_that_does_not_end_is_ended(store: Store, tmp_path: Path) -> None:
    async with Inspector(root=tmp_path, limits=Limits(seconds=1.5)) as inspector:
        examined = await inspector.run(store.job("m.joblib", ENDLESS))
        assert "more than 2 seconds" in failure(examined)
        assert examined.parts[0].size == len(ENDLESS)
        assert server_of(inspector).children() == []
        assert scratch_of(tmp_path) == []
        assert (await inspector.run(store.job("model.onnx", MODEL))).inspection.format == "onnx"


async def test_a_job_that_takes_too_much_memory_is_ended(store: Store, tmp_path: Path) -> None:
    async with Inspector(root=tmp_path, limits=Limits(memory=100 * MIB)) as inspector:
        examined = await inspector.run(store.job("m.joblib", HUGE))
        assert "memory" in failure(examined)
        assert scratch_of(tmp_path) == []


async def test_a_child_that_is_killed_is_an_unsafe_finding(store: Store, inspector: Inspector) -> None:
    running = asyncio.create_task(inspector.run(store.job("m.joblib", ENDLESS)))
    await until(lambda: inspector._server and server_of(inspector).children())
    (child,) = server_of(inspector).children()
    await until(lambda: child.cpu_times().user > 0.5)  # it inspects by now
    child.kill()
    assert "SIGKILL" in failure(await running)


async def test_a_child_that_is_killed_while_it_downloads_is_an_error(store: Store, inspector: Inspector) -> None:
    part = store.part("model.onnx", MODEL, url="hang")
    running = asyncio.create_task(inspector.run(Job(parts=(part,))))
    await until(lambda: store.asked)
    (child,) = server_of(inspector).children()
    child.kill()
    with pytest.raises(InspectionFailed, match="SIGKILL") as caught:
        await running
    assert caught.value.code == "inspection-failed"


async def test_cancelling_kills_the_child(store: Store, inspector: Inspector, tmp_path: Path) -> None:
    part = store.part("model.onnx", MODEL, url="hang")
    running = asyncio.create_task(inspector.run(Job(parts=(part,))))
    await until(lambda: store.asked)
    assert server_of(inspector).children()
    assert scratch_of(tmp_path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server_of(inspector).children() == []
    assert scratch_of(tmp_path) == []


async def test_a_dead_server_is_replaced_and_takes_its_children_along(store: Store, inspector: Inspector) -> None:
    part = store.part("model.onnx", MODEL, url="hang")
    running = asyncio.create_task(inspector.run(Job(parts=(part,))))
    await until(lambda: store.asked)
    server = server_of(inspector)
    (child,) = server.children()
    server.kill()
    with pytest.raises(InspectionFailed):
        await running
    await until(lambda: not child.is_running())
    assert (await inspector.run(store.job("ok.onnx", MODEL))).inspection.format == "onnx"


async def test_stop_ends_everything(store: Store, tmp_path: Path) -> None:
    inspector = Inspector(root=tmp_path)
    await inspector.start()
    await inspector.run(store.job("model.onnx", MODEL))
    server = server_of(inspector)
    await inspector.stop()
    assert not server.is_running()
    assert homes(tmp_path) == []


async def test_no_secret_reaches_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_S3_SECRET_KEY", "very-secret")
    async with Inspector(root=tmp_path) as inspector:
        environment = server_of(inspector).environ()
        assert not any(name.startswith("HALLMARK") for name in environment)
        assert "very-secret" not in environment.values()


async def test_what_a_killed_service_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "hallmark-inspect-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "big").write_bytes(bytes(10))
    async with Inspector(root=tmp_path) as first:
        assert not left.exists()
        async with Inspector(root=tmp_path):
            assert first._home in homes(tmp_path)  # another one's that is alive stays


async def test_a_file_beyond_the_room_is_hashed_but_not_kept(store: Store, tmp_path: Path) -> None:
    data = pickle.dumps(os.urandom(3 * MIB))
    async with Inspector(root=tmp_path, limits=Limits(scratch=2 * MIB)) as inspector:
        job = store.job("m.pkl", data)
        examined = await inspector.run(job)
        assert examined.parts[0].digest == job.parts[0].digest
        assert [f.code for f in examined.inspection.findings if f.severity is Severity.UNSAFE] == ["not-scanned"]


async def test_many_jobs_at_once(store: Store, inspector: Inspector) -> None:
    job = store.job("model.onnx", MODEL)
    found = await asyncio.gather(*(inspector.run(job) for _ in range(20)))
    assert {examined.inspection.format for examined in found} == {"onnx"}
