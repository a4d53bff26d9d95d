"""Where Apache Kafka's jars come from, and what is said where they cannot come."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedded import jars, kafka

MAVEN = """#!/bin/sh
echo run >> {record}
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${{word#*=}}";; esac; done
mkdir -p "$out"; sleep 0.2; echo jar > "$out/kafka.jar"; exit {code}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine: no Java, no Maven, no cache. Programs go to its `bin`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def program(machine: Path, name: str, text: str) -> None:
    path = machine / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def java(machine: Path, version: str) -> None:
    program(machine, "java", f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")


def maven(machine: Path, code: int = 0) -> None:
    program(machine, "mvn", MAVEN.format(record=machine / "runs", code=code))


def test_no_java_is_said_with_the_cure(machine: Path) -> None:
    with pytest.raises(jars.JarsError, match="install Java 17"):
        jars.java()


@pytest.mark.parametrize(
    ("version", "good"), [("1.8.0_402", False), ("11.0.2", False), ("17.0.15", True), ("25", True)]
)
def test_java_must_be_new_enough(machine: Path, version: str, good: bool) -> None:
    java(machine, version)
    if good:
        assert jars.java() == str(machine / "bin" / "java")
    else:
        with pytest.raises(jars.JarsError, match="too old"):
            jars.java()


def test_auto_falls_back_to_tansu_and_says_why(machine: Path) -> None:
    said: list[str] = []
    assert kafka.choose("auto", said.append) == "tansu"
    assert "Tansu" in said[0]
    assert "Java" in said[0]


def test_auto_falls_back_when_maven_fails(machine: Path) -> None:
    java(machine, "17.0.1")
    maven(machine, code=1)
    said: list[str] = []
    assert kafka.choose("auto", said.append) == "tansu"
    assert "fetching" in said[0]
    assert "failed (code 1)" in said[1]
    assert not jars.directory().exists(), "half a set of jars must not count as one"


def test_apache_by_force_does_not_fall_back(machine: Path) -> None:
    java(machine, "17.0.1")
    if os.path.exists("/usr/bin/mvn"):  # it cannot be hidden without hiding the shell
        maven(machine, code=1)
    with pytest.raises(jars.JarsError, match="Maven"):
        kafka.choose("apache")


def test_jars_are_fetched_once_by_all_who_start_together(machine: Path) -> None:
    java(machine, "21")
    maven(machine)
    with ThreadPoolExecutor(4) as pool:
        found = {*pool.map(lambda _: jars.resolve(), range(4))}
    assert found == {jars.directory()}
    assert (jars.directory() / "kafka.jar").exists()
    assert (machine / "runs").read_text() == "run\n"
    assert [path.name for path in jars.directory().parent.iterdir() if path.name != ".lock"] == ["lib"]


def test_the_version_is_the_one_of_the_pom() -> None:
    assert jars.version() in jars.POM.read_text()
    assert jars.directory().parent.name == f"kafka-{jars.version()}"


def test_no_cluster_id_begins_with_a_dash() -> None:
    ids = {jars.random_uuid() for _ in range(500)}
    assert len(ids) == 500
    assert not any(name.startswith("-") for name in ids)
    assert {len(name) for name in ids} == {22}
