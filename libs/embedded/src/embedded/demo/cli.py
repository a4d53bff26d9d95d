"""`hallmark demo`"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

DATA_DIR = Path(".hallmark/demo")
NEEDED = ("aiosmtpd", "onnx", "onnxruntime", "skl2onnx", "sklearn", "standardwebhooks")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running at the end.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Where the demo keeps its data and logs.")] = DATA_DIR,
    kafka: Annotated[str, typer.Option(help="The broker: auto, apache (needs Java) or tansu.")] = "auto",
) -> None:
    """Play the main job on real parts: train, register, approve, promote, serve, roll back, prove."""
    if kafka not in ("auto", "apache", "tansu"):
        raise typer.BadParameter("choose auto, apache or tansu", param_hint="--kafka")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"the demo needs {', '.join(missing)}: pip install 'hallmark-embedded[demo]'", err=True)
        raise typer.Exit(1)
    from embedded.demo.run import run

    raise typer.Exit(run(data_dir.resolve(), kafka, keep=keep, program=program(), shown=str(data_dir)))


def program() -> str:
    """How the user can call us again."""
    called = Path(sys.argv[0])
    if called.name != "hallmark":
        return "hallmark"
    near = os.path.relpath(called)
    return str(called) if near.startswith("..") else near
