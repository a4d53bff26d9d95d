"""Java and the jars of Apache Kafka: found, or fetched once by Maven into the user's cache."""

import base64
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

JAVA = 17
POM = Path(__file__).with_name("pom.xml")  # in the repository a link to deploy/kafka/pom.xml
FETCH_TIMEOUT = 600.0


class JarsError(RuntimeError):
    """Apache Kafka cannot run here. The message says why and what to do."""


def java() -> str:
    """The `java` program of JAVA_HOME or PATH. Raises JarsError if it is absent or too old."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin" if home else None)
    if program is None:
        raise JarsError(f"no Java found; install Java {JAVA} or newer, or set JAVA_HOME")
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(\d+)', done.stdout + done.stderr)
    if done.returncode != 0 or found is None:
        raise JarsError(f"`{program} -version` failed; install Java {JAVA} or newer")
    if int(found[1]) < JAVA:
        raise JarsError(f"Java {found[1]} is too old; install Java {JAVA} or newer, or set JAVA_HOME")
    return program


def directory() -> Path:
    """Where the jars of the version named in the pom lie, or will lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "hallmark" / f"kafka-{version()}" / "lib"


def version() -> str:
    """Kafka's version: the pom is the one place that names it."""
    found = ET.parse(POM).getroot().find("{*}properties/{*}kafka.version")  # noqa: S314 - our own file
    if found is None or not found.text:
        raise JarsError(f"{POM} names no kafka.version")
    return found.text.strip()


def missing() -> str | None:
    """Why Apache Kafka cannot run here, without trying to fetch anything; None if it seems that it can."""
    try:
        java()
    except JarsError as error:
        return str(error)
    if not directory().exists() and shutil.which("mvn") is None:
        return "its jars are not in the cache and there is no Maven (mvn) to fetch them"
    return None


def resolve(say: Callable[[str], None] = lambda _: None) -> Path:
    """The directory of the jars; fetches them the first time. Raises JarsError. Safe to call in parallel."""
    target = directory()
    if target.exists():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise JarsError("its jars are not in the cache; install Maven (mvn) so that they can be fetched once")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():  # somebody else was faster
            return target
        say(f"Kafka: fetching Apache Kafka {version()} (45 MB, once) with Maven")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as partial:
            copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}/lib"]
            pom = Path(partial) / "pom.xml"  # Maven writes beside the pom; the package may be read-only
            shutil.copyfile(POM, pom)
            run([maven, "-q", "-B", "-f", str(pom), *copy], "fetching Apache Kafka with Maven")
            (Path(partial) / "lib").rename(target)  # whole or not at all
    return target


def run(command: list[str], what: str) -> None:
    """Runs a tool to its end. Raises JarsError with the end of its output."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise JarsError(f"{what} took more than {FETCH_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise JarsError(f"{what} failed (code {done.returncode}):\n{tail}")


def random_uuid() -> str:
    """A cluster id in Kafka's own writing; not one that begins with a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
