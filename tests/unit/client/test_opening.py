"""`hallmark.load`: each format opens as what it is, and a pickle only when nothing speaks against it."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
from rich.console import Console
from safetensors.numpy import save as safetensors_bytes
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from skops.io import dumps as skops_bytes

import hallmark
from hallmark import Client, HallmarkError
from hallmark.progress import bars

ROWS = numpy.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.8, 0.1]], numpy.float32)
MODEL = LogisticRegression().fit(ROWS, [0, 1, 0, 1])


class Store:
    """One version, of these bytes and findings."""

    def __init__(self, name: str, data: bytes, findings: tuple[dict[str, str], ...] = ()) -> None:
        self.name, self.data, self.findings = name, data, findings
        self.downloads = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/blob":
            self.downloads += 1
            return httpx2.Response(200, content=self.data)
        digest = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
        artifact = {"digest": digest, "size": len(self.data), "filename": self.name}
        common: dict[str, Any] = {"workspace": "default", "model": "m", "version": 1, "stage": "Production"}
        common["digest"] = "sha256:" + "a" * 64
        if request.url.path.endswith("/resolve"):
            return httpx2.Response(200, json=common | {"artifact": artifact, "download_url": "http://s3/blob"})
        inspection = {"scanner": "s", "findings": list(self.findings)}
        more = {"content": {"artifact": artifact}, "registered_by": "ana", "registered_at": "2026-01-01T00:00:00Z"}
        return httpx2.Response(200, json=common | more | {"inspection": inspection})

    def load(self, **options: Any) -> Any:
        with Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(self)) as client:
            return hallmark.load("m", client=client, **options)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path))


def test_onnx_opens_as_a_session_and_is_downloaded_once() -> None:
    store = Store("model.onnx", to_onnx(MODEL, ROWS[:1], options={"zipmap": False}).SerializeToString())
    for _ in range(2):
        session = store.load()
        assert session.run(None, {session.get_inputs()[0].name: ROWS})[0].tolist() == [0, 1, 0, 1]
    assert store.downloads == 1


def test_skops_opens_without_running_code_and_refuses_types_it_does_not_know() -> None:
    assert Store("model.skops", skops_bytes(MODEL)).load().predict(ROWS).tolist() == [0, 1, 0, 1]
    odd = Store("odd.skops", skops_bytes({"of": Store}))
    with pytest.raises(HallmarkError, match="Store") as caught:
        odd.load()
    assert caught.value.code == "untrusted-types"


def test_safetensors_open_as_arrays() -> None:
    found = Store("weights.safetensors", safetensors_bytes({"w": ROWS})).load()
    assert numpy.array_equal(found["w"], ROWS)


def test_a_pickle_opens_only_when_it_is_allowed_and_clean() -> None:
    data = pickle.dumps(MODEL)
    with pytest.raises(HallmarkError) as caught:
        Store("model.pkl", data).load()
    assert caught.value.code == "pickle-not-allowed"
    assert Store("model.pkl", data).load(allow_pickle=True).predict(ROWS).tolist() == [0, 1, 0, 1]
    finding = {"severity": "warning", "code": "pickle-import", "detail": "imports cool.tricks"}
    store = Store("model.joblib", data, (finding,))
    with pytest.raises(HallmarkError, match=r"cool\.tricks") as caught:
        store.load(allow_pickle=True)
    assert (caught.value.code, store.downloads) == ("pickle-not-clean", 0)


def test_what_is_none_of_these_is_a_path() -> None:
    assert Store("notes.txt", b"hello").load().read_bytes() == b"hello"


def test_a_file_that_is_not_what_its_name_says_is_told() -> None:
    with pytest.raises(HallmarkError, match=r"model\.onnx") as caught:
        Store("model.onnx", b"no model").load()
    assert caught.value.code == "invalid-artifact"


def test_people_see_how_far_it_is() -> None:
    console = Console(record=True, force_terminal=True, width=100)
    with bars("model.bin", console) as (hashed, sent):
        hashed(2_000_000)
        sent(1_000_000)
    told = console.export_text()
    assert "hashing model.bin" in told
    assert "sending model.bin" in told
    assert "1.0/2.0 MB" in told
