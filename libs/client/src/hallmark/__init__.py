"""Hallmark's Python SDK.

>>> import hallmark
>>> client = hallmark.Client()                       # HALLMARK_URL, HALLMARK_TOKEN
>>> version = client.register("fraud", "model.onnx", metrics={"accuracy": 0.94})
>>> client.request_stage("fraud", version.version, "Production", "beats the champion by 1 %", wait=60)
"""

from hallmark.approval_results import Request
from hallmark.client import Client
from hallmark.deciding import decision
from hallmark.errors import HallmarkError, VersionRevoked
from hallmark.loading import Loaded
from hallmark.opening import load
from hallmark.results import Model, Pin, Subscription, Tenure, TimelineItem, Transition, Version
from hallmark.watch import Watcher, watch

__all__ = [
    "Client",
    "HallmarkError",
    "Loaded",
    "Model",
    "Pin",
    "Request",
    "Subscription",
    "Tenure",
    "TimelineItem",
    "Transition",
    "Version",
    "VersionRevoked",
    "Watcher",
    "decision",
    "load",
    "watch",
]
