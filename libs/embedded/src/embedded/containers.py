"""PostgreSQL, Kafka and S3 from `testcontainers`, for `HALLMARK_TEST_STACK=containers`.

The images are those of `docker-compose.yml`, so a test run and an installation meet the same software.
Nothing is pulled behind your back: `deploy/local-images/build` pulls them, or builds stand-ins.
"""

import os
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embedded.keeper import Facts, Provided
from embedded.ports import free_port

START_SECONDS = 90
# Where published ports are. Kafka must be told before it starts, so testcontainers cannot be asked.
HOST = os.environ.get("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")


class ContainersUnavailable(RuntimeError):
    """Docker, an image or the compose file is missing; the text says which and what to do."""


def provide(kind: str, data: Path) -> Provided:
    """Starts one container and waits until it serves. The same facts as `keeper.provide` gives.

    kind: postgres, s3 or kafka-apache. `data` is not used: a container keeps its own until it is stopped.
    Raises ContainersUnavailable: Docker or the image is not here; TimeoutError: it does not serve.
    """
    makers: dict[str, Callable[[], tuple[Facts, Any]]] = {
        "postgres": _postgres,
        "s3": _s3,
        "kafka-apache": _kafka,
    }
    stack = os.environ.get("HALLMARK_TEST_STACK")
    if stack != "containers" or kind not in makers:
        raise ContainersUnavailable(f"HALLMARK_TEST_STACK={stack} has no {kind}; it is embedded or containers")
    facts, container = makers[kind]()
    stopped = threading.Event()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            container.stop()

    return Provided(facts, stop)


def _postgres() -> tuple[Facts, Any]:
    password = secrets.token_hex(12)
    container = _container("postgres").with_env("POSTGRES_PASSWORD", password).with_exposed_ports(5432)
    # Lost on a crash of the machine, like the tests themselves.
    container.with_command(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=300"]).start()
    _wait(container, lambda: _ok(container, ["pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres"]))
    url = f"postgresql://postgres:{password}@{HOST}:{container.get_exposed_port(5432)}/postgres"
    return {"url": url}, container


def _kafka() -> tuple[Facts, Any]:
    container = _container("kafka")
    port = free_port()
    # What compose sets, but for the address that clients on this machine are told.
    for name, value in _service("kafka")["environment"].items():
        if "$" not in str(value):
            container.with_env(name, str(value))
    container.with_env("KAFKA_HEAP_OPTS", "-Xms128m -Xmx384m")
    container.with_env("KAFKA_ADVERTISED_LISTENERS", f"INTERNAL://localhost:9092,EXTERNAL://{HOST}:{port}")
    container.with_bind_ports(9094, port).start()
    _wait(container, lambda: _ok(container, ["bash", "-c", "</dev/tcp/127.0.0.1/9094"]))
    return {"bootstrap": f"{HOST}:{port}", "kind": "apache"}, container


def _s3() -> tuple[Facts, Any]:
    access, secret = "hallmark", secrets.token_hex(16)
    service = _service("s3")
    # Without approval's own key: its file is an installation's.
    command = [word for word in service["command"] if not word.startswith("-s3.config=")]
    container = _container("s3").with_command(command).with_exposed_ports(8333)
    container.with_kwargs(entrypoint=service["entrypoint"], hostname="s3")
    container.with_env("AWS_ACCESS_KEY_ID", access).with_env("AWS_SECRET_ACCESS_KEY", secret)
    container.start()
    endpoint = f"http://{HOST}:{container.get_exposed_port(8333)}"
    _wait(container, lambda: _answers(f"{endpoint}/healthz"))
    return {"endpoint": endpoint, "access_key": access, "secret_key": secret}, container


@cache
def _compose() -> dict[str, Any]:
    for directory in (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents):
        if (directory / "docker-compose.yml").is_file():
            loaded: dict[str, Any] = yaml.safe_load((directory / "docker-compose.yml").read_text())["services"]
            return loaded
    raise ContainersUnavailable("no docker-compose.yml here or above: run the tests inside the repository")


def _service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = _compose()[name]
    return found


def _container(service: str) -> Any:
    """A container of the compose service's image, not started.

    Ryuk, testcontainers' reaper, would be one more image to pull; the keeper stops what it starts.
    """
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    import docker  # type: ignore[import-untyped]
    from testcontainers.core.container import DockerContainer

    image = _service(service)["image"]
    try:
        docker.from_env().images.get(image)
    except docker.errors.ImageNotFound as error:
        raise ContainersUnavailable(f"the image {image} is not here: run deploy/local-images/build") from error
    except docker.errors.DockerException as error:
        raise ContainersUnavailable(f"Docker does not answer: {error}") from error
    return DockerContainer(image)


def _wait(container: Any, serves: Callable[[], bool]) -> None:
    """Returns when it serves; stops it and raises when it ended or is too slow."""
    deadline = time.monotonic() + START_SECONDS
    while not serves():
        container.get_wrapped_container().reload()
        state = container.get_wrapped_container().status
        if state in ("exited", "dead") or time.monotonic() > deadline:
            log = container.get_wrapped_container().logs(tail=30).decode(errors="replace")
            container.stop()
            raise TimeoutError(f"{container.image} does not serve (it is {state}):\n{log}")
        time.sleep(0.2)


def _ok(container: Any, command: list[str]) -> bool:
    import docker

    try:
        return bool(container.get_wrapped_container().exec_run(command).exit_code == 0)
    except docker.errors.APIError:  # not running yet, or no longer
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own container
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
