"""`hallmark up`, `down`, `status` and `token create`: the whole system on one machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedded.demo.cli import demo

if TYPE_CHECKING:  # loaded on use: every `hallmark` command imports this module
    from embedded.state import Process, State

DataDir = Annotated[
    Path, typer.Option(envvar="HALLMARK_DATA_DIR", help="Where databases, objects, keys and logs are kept.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys, for scripts.")]
Port = Annotated[int, typer.Option(min=1, max=65535)]
DATA_DIR = Path(".hallmark")
DOWN_TIMEOUT = 90.0


def register(app: typer.Typer) -> None:
    """Adds the commands; called by the `hallmark` command through its entry point."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(demo)
    tokens = typer.Typer(name="token", help="Tokens of the built-in issuer.", no_args_is_help=True)
    tokens.command("create")(token_create)
    app.add_typer(tokens)


def up(
    data_dir: DataDir = DATA_DIR,
    kafka: Annotated[str, typer.Option(help="The broker: auto, apache (needs Java) or tansu (forgets).")] = "auto",
    port_registry: Port = 8801,
    port_approval: Port = 8802,
    port_audit: Port = 8803,
    port_notifier: Port = 8804,
    detach: Annotated[bool, typer.Option("--detach/--foreground", help="Return when ready, leave it running.")] = False,
    people: Annotated[
        bool,
        typer.Option("--people", help="With the vault of identities: the log has pseudonyms. For good, once it is on."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start PostgreSQL, Kafka, the object store and the four services; Ctrl-C stops them."""
    if kafka not in ("auto", "apache", "tansu"):
        raise typer.BadParameter("choose auto, apache or tansu", param_hint="--kafka")
    ports = {"registry": port_registry, "approval": port_approval, "audit": port_audit, "notifier": port_notifier}
    shared = sorted({port for port in ports.values() if list(ports.values()).count(port) > 1})
    if shared:
        names = " and ".join(f"--port-{name}" for name, port in ports.items() if port == shared[0])
        raise typer.BadParameter(f"port {shared[0]} is given to more than one service", param_hint=names)
    work = _detached if detach else _foreground
    raise typer.Exit(work(data_dir, kafka, ports, as_json, people=people))


def down(data_dir: DataDir = DATA_DIR) -> None:
    """Stop a running stack of that data directory; its data stays."""
    import psutil

    from embedded import state

    known = state.read(data_dir)
    if known is None or not known.running():
        typer.echo(f"nothing runs on {data_dir}")
        return
    typer.echo("stopping ...")
    supervisor = psutil.Process(known.supervisor)
    supervisor.terminate()
    end = time.monotonic() + DOWN_TIMEOUT
    while known.running() and time.monotonic() < end:
        time.sleep(0.05)
    if known.running():
        supervisor.kill()  # its children go with it: reaper.py
        typer.echo(f"it did not stop within {DOWN_TIMEOUT:.0f} s and was killed", err=True)
        raise typer.Exit(1)
    typer.echo("stopped")


def status(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show each process of the stack; exit code 1 unless all are healthy."""
    from rich.console import Console

    from embedded import state
    from embedded.view import table

    known = state.read(data_dir)
    if known is None or not known.running():
        typer.echo(json.dumps({"running": False}) if as_json else f"nothing runs on {data_dir}")
        raise typer.Exit(1)
    health = {process.name: _healthy(known, process) for process in known.processes}
    if as_json:
        typer.echo(json.dumps(_report(known, health), indent=1))
    else:
        Console().print(table(known.processes, health))
        typer.echo("\n".join(["", *_exports(known)]))
        if known.phase != "ready":
            typer.echo(f"the stack is {known.phase}")
    raise typer.Exit(0 if health and all(health.values()) and known.phase == "ready" else 1)


def token_create(
    subject: Annotated[str, typer.Option(help="Who the token is for.", show_default=False)],
    group: Annotated[list[str] | None, typer.Option(help="A group of theirs; may be repeated.")] = None,
    email: Annotated[str | None, typer.Option(help="A mailbox that they read.")] = None,
    ttl: Annotated[str, typer.Option(help="How long it is good for: 30m, 12h, 7d.")] = "12h",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print a token for a user of this stack; its groups give the roles (access.yaml)."""
    from kit import keys

    try:
        keys.seconds(ttl)
    except ArgumentTypeError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    key = data_dir / "keys" / "auth.jwk"
    if not key.exists():
        typer.echo(f"{key} does not exist: `hallmark up` makes it", err=True)
        raise typer.Exit(1)
    groups = [word for name in group or [] for word in ("--group", name)]
    mailbox = ["--email", email] if email else []
    keys.main(["token", "--key", str(key), "--subject", subject, *groups, *mailbox, "--ttl", ttl])


def _foreground(data_dir: Path, kafka: Any, ports: dict[str, int], as_json: bool, *, people: bool) -> int:
    from embedded.stack import Options, Stack
    from embedded.view import View

    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    began = time.monotonic()
    failed: list[Exception] = []
    view = View(_console(), quiet=as_json)
    stack = Stack(Options(data_dir, kafka, ports, people=people), on_change=view.show)

    def start() -> None:
        try:
            stack.start()
        except Exception as error:
            failed.append(error)

    # In a thread, so that Ctrl-C is heard while it starts.
    starting = threading.Thread(target=start, name="start")
    with view:
        starting.start()
        while starting.is_alive() and not asked.wait(0.1):
            pass
        if not asked.is_set() and not failed:
            view.settle()
            _announce(stack.state, data_dir, as_json, time.monotonic() - began)
            asked.wait()
        if asked.is_set() and not as_json:
            view.settle()
            _console().print("stopping ...")
        stack.stop()
        starting.join()
    if failed and not asked.is_set():
        _console(err=True).print(str(failed[0]), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _detached(data_dir: Path, kafka: str, ports: dict[str, int], as_json: bool, *, people: bool) -> int:
    from embedded import state
    from embedded.view import View

    began = time.monotonic()
    log = data_dir / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "embedded", "up", "--foreground", "--data-dir", str(data_dir), "--kafka", kafka]
    command += [word for name, port in ports.items() for word in (f"--port-{name}", str(port))]
    command += ["--people"] if people else []
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "200"},
        )
    with View(_console(), quiet=as_json) as view:
        while True:
            ended = child.poll() is not None
            known = state.read(data_dir)
            if known is not None and known.supervisor == child.pid:
                view.show(known)
                if known.phase == "ready":
                    break
            if ended:
                view.settle()
                text = log.read_text(errors="replace").strip()
                reason = known.error if known and known.supervisor == child.pid and known.error else text
                _console(err=True).print(reason, style="red", markup=False, highlight=False, soft_wrap=True)
                return 1
            time.sleep(0.1)
        view.settle()
    child.returncode = 0  # it goes on without us
    _announce(known, data_dir, as_json, time.monotonic() - began)
    return 0


def _announce(known: "State", data_dir: Path, as_json: bool, seconds: float) -> None:
    """Says where everything listens and how to become somebody."""
    from embedded.view import table

    if as_json:
        typer.echo(json.dumps(_report(known, {process.name: True for process in known.processes})))
        return
    console = _console()
    console.print(table(known.processes))
    option = "" if data_dir == DATA_DIR else f" --data-dir {data_dir}"
    lines = [
        f"\nHallmark is ready after {seconds:.1f} s. Kafka: {known.kafka}. Data and logs: {data_dir}/",
        *(f"  {name:<9} {url}" for name, url in known.urls.items()),
        "\nBecome somebody (groups give roles, see access.yaml there):",
        *(f"  {line}" for line in _exports(known)),
        f"  export HALLMARK_TOKEN=$(hallmark token create --subject ana --group ml-engineers{option})",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _exports(known: "State") -> list[str]:
    """What the SDK and the commands read to find this stack."""
    return [
        f"export HALLMARK_URL={known.urls['registry']}",
        f"export HALLMARK_KAFKA_BOOTSTRAP={known.kafka_bootstrap}",
    ]


def _report(known: "State", health: dict[str, bool]) -> dict[str, Any]:
    return {
        "running": True,
        "phase": known.phase,
        "data_dir": known.data_dir,
        "kafka": known.kafka,
        "kafka_bootstrap": known.kafka_bootstrap,
        "supervisor": known.supervisor,
        "urls": known.urls,
        "processes": [
            {
                "name": process.name,
                "pid": process.pid,
                "port": process.port,
                "healthy": health[process.name],
                "uptime_seconds": process.uptime(),
                "restarts": process.restarts,
                "log": process.log,
            }
            for process in known.processes
        ],
    }


def _healthy(known: "State", process: "Process") -> bool:
    from embedded import kafka
    from embedded.ports import is_free
    from embedded.process import http_ok

    if not process.alive():
        return False
    if process.name in known.urls:
        return http_ok(f"{known.urls[process.name]}/readyz", process.pid)
    return kafka.answers(process.port) if process.name == "kafka" else not is_free(process.port)


def _console(*, err: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=err)
