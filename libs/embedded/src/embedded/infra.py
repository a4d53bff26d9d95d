"""The three servers that Hallmark needs, started together over one data directory."""

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from embedded import kafka as kafka_
from embedded import postgres as postgres_
from embedded import s3 as s3_
from embedded.ports import HOST, remembered, write_json
from embedded.process import Child


@dataclass(frozen=True)
class Infra:
    """Where the servers are: what a service's settings are made of."""

    postgres_admin_url: str
    kafka_bootstrap: str
    kafka_kind: kafka_.Kind
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_own: dict[str, str]  # bucket -> the secret of the key, called as the bucket, that opens it alone


@dataclass
class RunningInfra:
    infra: Infra
    postgres: Child
    kafka: Child
    s3: Child

    def children(self) -> list[Child]:
        return [self.postgres, self.kafka, self.s3]

    def stop(self) -> None:
        """Stops all three, side by side."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda child: child.stop(), self.children()))

    def __enter__(self) -> "RunningInfra":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def prepare_infra(
    data_dir: Path | str,
    kafka: kafka_.Choice = "auto",
    ports: dict[str, int] | None = None,
    *,
    fsync: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> RunningInfra:
    """The three servers over `data_dir`, not yet started. Ports and passwords are those of the last time.

    ports: fixes some of `postgres`, `kafka`, `s3_gateway`, ...; the others are free ones.
    fsync: False makes PostgreSQL faster and unsafe against a crash of the machine; for tests.
    Raises jars.JarsError if `kafka` is "apache" and it cannot run.
    """
    data = Path(data_dir).resolve()
    data.mkdir(parents=True, exist_ok=True)
    kind = kafka_.choose(kafka, say)
    port = remembered(data / "ports.json", ["postgres", *kafka_.PORTS, *s3_.PORTS], ports)
    passwords = secret(data, "postgres", "s3", s3_.EVIDENCE, s3_.LOG)
    own = {bucket: passwords[bucket] for bucket in (s3_.EVIDENCE, s3_.LOG)}
    s3_ports = {name: port[name] for name in s3_.PORTS}
    logs = data / "logs"
    return RunningInfra(
        infra=Infra(
            postgres_admin_url=postgres_.admin_url(port["postgres"], passwords["postgres"]),
            kafka_bootstrap=f"{HOST}:{port['kafka']}",
            kafka_kind=kind,
            s3_endpoint=s3_.endpoint(s3_ports),
            s3_access_key=s3_.ACCESS_KEY,
            s3_secret_key=passwords["s3"],
            s3_own=own,
        ),
        postgres=postgres_.postgres(
            data / "postgres", port["postgres"], passwords["postgres"], logs / "postgres.log", fsync=fsync
        ),
        kafka=kafka_.kafka(kind, data / "kafka", port, logs / "kafka.log"),
        s3=s3_.s3(data / "s3", s3_ports, passwords["s3"], logs / "s3.log", own),
    )


def start_infra(
    data_dir: Path | str,
    kafka: kafka_.Choice = "auto",
    ports: dict[str, int] | None = None,
    *,
    fsync: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> RunningInfra:
    """As `prepare_infra`, then starts all three side by side; returns when all are ready.

    Raises process.StartError if one does not start; then none is left running.
    """
    running = prepare_infra(data_dir, kafka, ports, fsync=fsync, say=say)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda child: child.start(), running.children()))
    except BaseException:
        running.stop()
        raise
    return running


def secret(data: Path, *names: str) -> dict[str, str]:
    """A random word for each name, made once and kept in the data directory, readable to its owner only."""
    path = data / "secrets.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    new = {name: secrets.token_hex(16) for name in names if name not in known}
    if new:
        write_json(path, known | new)
    return {name: (known | new)[name] for name in names}
