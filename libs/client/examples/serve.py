"""A server that always predicts with what is in Production: FastAPI, onnxruntime, and no restart, ever.

    pip install 'hallmark-registry[onnx]' fastapi uvicorn
    HALLMARK_URL=http://127.0.0.1:8801 HALLMARK_TOKEN=... MODEL=fraud uvicorn --app-dir libs/client/examples serve:app
    curl -d '{"rows": [[1.0, 2.0]]}' -H 'content-type: application/json' http://127.0.0.1:8000/predict

Settings: MODEL; STAGE (Production); PIN_KEYS, a file with the registry's public keys (`hallmark serving keys`), so that
nothing in between can lie; BOOTSTRAP, what `hallmark serving export` wrote into the image; SPREAD, the seconds over
which a fleet swaps.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

import hallmark


class Rows(BaseModel):
    rows: list[list[float]]


def load(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def predict_with(session: onnxruntime.InferenceSession, rows: list[list[float]]) -> Any:
    return session.run(None, {session.get_inputs()[0].name: numpy.asarray(rows, numpy.float32)})[0]


def self_test(session: onnxruntime.InferenceSession) -> None:
    """Whatever raises here is never served."""
    columns = session.get_inputs()[0].shape[1]
    predict_with(session, [[0.0] * columns])


def path_from(name: str) -> Path | None:
    return Path(os.environ[name]) if os.environ.get(name) else None


watcher = hallmark.watch(
    os.environ["MODEL"],
    load,
    stage=os.environ.get("STAGE", "Production"),
    self_test=self_test,
    pin_keys=path_from("PIN_KEYS"),
    bootstrap=path_from("BOOTSTRAP"),
    spread=float(os.environ.get("SPREAD", "0")),
    keep_previous=True,
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await asyncio.to_thread(watcher.start)  # returns when a model is ready, so that no request comes too early
    try:
        yield
    finally:
        await asyncio.to_thread(watcher.stop)


app = FastAPI(title="follows Production", lifespan=lifespan)


@app.post("/predict")
def predict(body: Rows) -> dict[str, Any]:
    loaded = watcher.current  # one read: this request is answered by one version, whatever happens meanwhile
    if loaded is None:
        raise HTTPException(503, str(watcher.revoked or "no model is ready"))
    return {"version": loaded.version, "predictions": predict_with(loaded.model, body.rows).tolist()}


@app.get("/healthz")
def healthz() -> dict[str, Any]:
    """Ready as long as there is a model; `trouble` tells of a registry that is away, which is none of the callers'."""
    loaded, status = watcher.current, watcher.status
    if loaded is None:
        raise HTTPException(503, status.trouble or "no model is ready")
    return {"version": loaded.version, "trouble": status.trouble, "stale": status.stale}


@app.get("/metrics")
def metrics() -> Response:
    return Response(watcher.metrics(), media_type="text/plain; version=0.0.4")
