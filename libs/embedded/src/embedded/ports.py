"""Free TCP ports, and a memory of them, so that a second start listens where the first did."""

import fcntl
import json
import os
import random
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which the kernel takes the local ports of outgoing connections: else a client that
# retries its connection while the server is away may be given the server's own port, and keep it.
RANGE = (15_000, 32_000)
# Locked files, one for each port this process has picked: between the pick and the server's start lie seconds, in
# which another run on this machine must not pick the same. The locks die with the process.
_reserved: dict[int, int] = {}


def is_free(port: int, host: str = HOST) -> bool:
    """True if a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections do not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A port that nobody listens on; `taken` are kept out. Raises OSError if there seems to be none."""
    avoid = set(taken)
    for _ in range(500):
        port = random.SystemRandom().randrange(*RANGE)
        if port not in avoid and is_free(port) and reserve(port):
            return port
    raise OSError(f"no free port found between {RANGE[0]} and {RANGE[1]}")


def reserve(port: int) -> bool:
    """Keeps other processes of ours from picking the port; False when one of them has it."""
    if port in _reserved:
        return True
    directory = Path(tempfile.gettempdir()) / "hallmark-ports"
    directory.mkdir(exist_ok=True)
    with suppress(PermissionError):
        directory.chmod(0o1777)  # every user of the machine picks ports
    descriptor = os.open(directory / str(port), os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _reserved[port] = descriptor
    return True


def remembered(path: Path, names: Iterable[str], fixed: dict[str, int] | None = None) -> dict[str, int]:
    """One port for each name, as remembered in the JSON file `path`; a port now taken is picked again.

    `fixed` ports are used as they are. What was picked is written back.
    """
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    ports = dict(fixed or {})
    for name in names:
        if name in ports:
            continue
        port = known.get(name)
        if port is None or port in ports.values() or not is_free(port) or not reserve(port):
            port = free_port({*known.values(), *ports.values()})
        ports[name] = port
    write_json(path, {**known, **ports})
    return ports


def write_json(path: Path, value: object, mode: int = 0o600) -> None:
    """Replaces the file in one step, so that a reader sees the old or the new, never a half."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{random.SystemRandom().randrange(1 << 32):08x}")
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode), "w") as file:
        json.dump(value, file, indent=1)
    partial.replace(path)
