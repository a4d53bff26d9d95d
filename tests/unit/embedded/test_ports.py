"""Ports: free when picked, remembered, picked again when somebody else has taken them."""

import json
import socket
import subprocess
import sys
from pathlib import Path

from embedded.ports import HOST, RANGE, free_port, is_free, remembered, reserve, write_json


def listen(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((HOST, port))
    server.listen()
    return server


def test_a_port_that_is_listened_on_is_not_free() -> None:
    port = free_port()
    assert is_free(port)
    with listen(port):
        assert not is_free(port)
    assert is_free(port)


def test_a_port_just_closed_with_connections_is_free_again() -> None:
    port = free_port()
    with listen(port) as server:
        client = socket.create_connection((HOST, port))
        accepted, _ = server.accept()
        accepted.close()  # the server's end closes first: it is the one left in TIME_WAIT
        client.close()
    assert is_free(port)


def test_free_ports_lie_below_the_range_of_outgoing_connections() -> None:
    assert all(RANGE[0] <= free_port() < RANGE[1] < 32_768 for _ in range(50))


def test_the_second_start_gets_the_ports_of_the_first(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["a", "b"])
    assert first["a"] != first["b"]
    assert remembered(tmp_path / "ports.json", ["a", "b"]) == first


def test_a_remembered_port_that_was_taken_is_picked_again(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["a", "b"])
    with listen(first["a"]):
        second = remembered(tmp_path / "ports.json", ["a", "b"])
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert json.loads((tmp_path / "ports.json").read_text()) == second


def test_a_fixed_port_is_used_as_it_is_and_given_to_nobody_else(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["a", "b"])
    second = remembered(tmp_path / "ports.json", ["a", "b"], {"b": first["a"]})
    assert second["b"] == first["a"]
    assert second["a"] != first["a"]


def test_a_new_name_joins_the_remembered_ones(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["a"])
    remembered(tmp_path / "ports.json", ["b"])
    assert remembered(tmp_path / "ports.json", ["a"]) == first


def test_a_file_is_replaced_whole_and_closed_to_others(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [1])
    write_json(tmp_path / "x.json", [2])
    assert json.loads((tmp_path / "x.json").read_text()) == [2]
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_port_that_another_process_picked_is_passed_over() -> None:
    """Nobody listens on it yet: the server that it was picked for takes seconds to start."""
    program = "from embedded.ports import free_port; print(free_port(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert is_free(port)
        assert not reserve(port)
        other.communicate(b"\n")
    assert reserve(port), "the lock ends with its process"
