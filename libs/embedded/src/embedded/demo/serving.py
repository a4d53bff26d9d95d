"""A serving process: follows Production and predicts without a pause.

`python -m embedded.demo.serving MODEL HELD_OUT.npz`, with HALLMARK_URL, HALLMARK_TOKEN and HALLMARK_WORKSPACE.
Writes one JSON line whenever it serves another version (with the accuracy over the held-out rows), one when the version
in use was revoked, and one at the end.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import hallmark

PAUSE_SECONDS = 0.002


def serve(model: str, data: Path) -> None:
    import numpy
    from onnxruntime import InferenceSession

    held_out = numpy.load(data)
    rows, truth = held_out["rows"], held_out["truth"]

    def load(path: Path) -> Any:
        return InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(session: Any, some: Any) -> Any:
        return session.run(None, {session.get_inputs()[0].name: some})[0]

    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    watcher = hallmark.watch(
        model,
        load,
        every=0.25,
        self_test=lambda session: predict(session, rows[:1]),
        on_revoked=lambda held, why: tell(revoked=held.version, why=why.reason),
        directory=data.parent / "cache",
    )
    told, predictions, failures = 0, 0, 0
    parent = os.getppid()
    with watcher:
        while not stopping and os.getppid() == parent:
            loaded = watcher.current
            if loaded is None:  # revoked, and nothing has taken its place yet: no answer rather than a bad one
                time.sleep(PAUSE_SECONDS)
                continue
            try:
                predict(loaded.model, rows[predictions % len(rows)][None, :])
                predictions += 1
            except Exception:
                failures += 1
            if loaded.pin.sequence != told:
                told = loaded.pin.sequence
                accuracy = float((predict(loaded.model, rows) == truth).mean())
                tell(version=loaded.version, accuracy=accuracy, predictions=predictions, digest=loaded.pin.digest)
            time.sleep(PAUSE_SECONDS)
    tell(end=True, predictions=predictions, failures=failures)


def tell(**facts: object) -> None:
    sys.stdout.write(json.dumps({"pid": os.getpid(), **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
