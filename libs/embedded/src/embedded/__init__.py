"""Hallmark on one machine: PostgreSQL, Kafka and an S3 store as child processes of this one."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded.infra import Infra, RunningInfra, start_infra
    from embedded.process import Child, StartError
    from embedded.stack import Options, Stack

__all__ = ["Child", "Infra", "Options", "RunningInfra", "Stack", "StartError", "start_infra"]

_HOMES = {"Child": "process", "StartError": "process", "Options": "stack", "Stack": "stack"}


def __getattr__(name: str) -> object:
    """Loads on first use: every `hallmark` command imports this package to find `up`, few need the rest."""
    if name not in __all__:
        raise AttributeError(f"module 'embedded' has no attribute {name!r}")
    return getattr(importlib.import_module(f"embedded.{_HOMES.get(name, 'infra')}"), name)
