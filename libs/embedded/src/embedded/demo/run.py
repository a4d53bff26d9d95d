"""Plays the story on a running stack: a fresh workspace, the people, the receivers, the serving process."""

import fcntl
import logging
import os
import secrets
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from embedded.demo import governance, proof, training
from embedded.demo.house import House, enter
from embedded.demo.receivers import Receivers
from embedded.demo.server import Server
from embedded.demo.story import MODEL, Cast, Story
from embedded.demo.tell import Teller, Unexpected
from hallmark import Client, HallmarkError
from hallmark.output import text
from hallmark.publish import Publisher

TRAINING_SECONDS = 120


class Training:
    """The training process, begun early: it works while the stack starts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "training.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "embedded.demo.training", str(directory)], stdout=log, stderr=log
            )

    def result(self) -> dict[str, training.Trained]:
        """Raises Unexpected when training failed."""
        if self._process.wait(TRAINING_SECONDS) != 0:
            raise Unexpected(f"training failed: {self._log.read_text()[-1500:]}")
        return training.load(self._directory)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def play(tell: Teller, house: House, receivers: Receivers, trained: dict[str, training.Trained], work: Path) -> str:
    """Tells everything once; gives the workspace it happened in.

    Raises:
        Unexpected: a step was not as it must be.
        HallmarkError: a service refused what it should do.
    """
    workspace = f"demo-{secrets.token_hex(3)}"
    with ExitStack() as stack:
        story = _story(stack, tell, house, trained, workspace)
        _told_about_training(tell, trained)
        subscriptions = proof.subscribe(story, receivers)
        story.register()
        story.first_production()
        server = stack.enter_context(_server(house, workspace, work))
        story.served(server, 1, 1)
        story.worse()
        story.promote(server)
        story.roll_back(server)
        governance.rules(story)
        governance.waive(story, server, work)
        governance.revoke(story, server)
        proof.timeline(story)
        proof.instants(story)
        proof.verify(story, work)
        proof.notices(story, receivers)
        # Their receivers end with the demo.
        for subscription_id in subscriptions:
            story.cast.ana.unsubscribe(subscription_id)
    return workspace


def _story(stack: ExitStack, tell: Teller, house: House, trained: dict[str, training.Trained], workspace: str) -> Story:
    def client(subject: str, group: str, kind: str = "person") -> Client:
        token = house.token(subject, group, kind)
        return stack.enter_context(Client(house.registry_url, token, workspace=workspace))

    def publisher() -> Publisher:
        return Publisher(
            house.kafka_bootstrap,
            house.token("trainer", "ml-engineers", "service"),
            source="demo/training",
            prefix="",
        )

    cast = Cast(
        ana=client("ana", "ml-engineers"),
        ben=client("ben", "reviewers"),
        olga=client("olga", "operators"),
        aud=client("aud", "auditors"),
        rita=client("rita", "risk"),
        root=client("root", "admins"),
        ada=client("ada", "admins"),
        trainer=client("trainer", "ml-engineers", "service"),
        ci=client("ci", "ml-engineers", "service"),
    )
    return Story(tell, cast, publisher, workspace, trained)


def _server(house: House, workspace: str, work: Path) -> Server:
    environment = {
        "HALLMARK_URL": house.registry_url,
        "HALLMARK_TOKEN": house.token("scorer", "servers", "service"),
        "HALLMARK_WORKSPACE": workspace,
    }
    return Server(MODEL, work / "held_out.npz", environment, work / "serving.log")


def _told_about_training(tell: Teller, trained: dict[str, training.Trained]) -> None:
    some = trained["tree"]
    tell.chapter(f"Train on {some.rows_trained} biopsies, measure on {some.rows_held_out} others")
    names = ("tree", "logistic")
    tell.table(
        ("model", *some.metrics, "exported"),
        [
            (trained[n].about, *(text(v) for v in trained[n].metrics.values()), f"{Path(trained[n].file).name}")
            for n in names
        ],
    )
    tell.expect(
        trained["logistic"].metrics["accuracy"] > trained["tree"].metrics["accuracy"] >= 0.9,
        "two classifiers, measured as the ONNX files that will be served; the second is the better one",
    )


def run(data: Path, kafka: str, *, keep: bool, program: str, shown: str) -> int:
    """The whole demo: 0 when every check held, 1 otherwise."""
    # Tansu refuses idempotent producers; the publisher then does without, but aiokafka calls it an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    tell = Teller(console())
    data.mkdir(parents=True, exist_ok=True)
    with (data / "demo.lock").open("a") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tell.console.print(f"another demo is playing on {data}", style="red", markup=False)
            return 1
        try:
            workspace, house = _perform(tell, stack, data, kafka, keep=keep)
        except (Unexpected, HallmarkError, OSError) as error:
            tell.console.print(f"\nThe demo stopped: {error}", style="bold red", markup=False)
            tell.console.print(f"Logs: {shown}/logs and {shown}/work", markup=False)
            return 1
        except KeyboardInterrupt:
            tell.console.print("\nstopping ...")
            return 130
    tell.console.print(f"\nAll {tell.checks} checks held, in {tell.seconds:.0f} s.", style="bold green")
    if keep or not house.ours:
        token = f"$({program} token create --subject aud --group auditors --data-dir {shown})"
        lines = [
            "The stack is still running. Look around:",
            f"  export HALLMARK_URL={house.registry_url} HALLMARK_WORKSPACE={workspace}",
            f"  export HALLMARK_KAFKA_BOOTSTRAP={house.kafka_bootstrap}",
            f"  export HALLMARK_TOKEN={token}",
            f"  {program} version list {MODEL}",
            f"  {program} audit production {MODEL}",
            f"Stop it: {program} down --data-dir {shown}",
        ]
        tell.console.print("\n".join(lines), markup=False, soft_wrap=True)
    return 0


def console() -> Console:
    """The terminal; in a pipe or a log a hundred columns, without colours."""
    made = Console(highlight=False)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=100)


def _perform(tell: Teller, stack: ExitStack, data: Path, kafka: str, *, keep: bool) -> tuple[str, House]:
    work = data / "work"
    tell.console.print("Hallmark: which model is in production, how was it made, who let it in, on what evidence?")
    tell.say(
        "ana is an ML engineer, ben a reviewer, rita a risk officer, olga an operator, aud an auditor; "
        "root and ada are administrators; trainer and ci are service accounts."
    )
    tell.say("Two models are trained while PostgreSQL, Kafka, an S3 store and the four services start.")
    lesson = Training(work)
    stack.callback(lesson.stop)
    with tell.waiting("starting") as show:
        house = enter(data, kafka, show)
        ending = stack.enter_context(ExitStack())
        if house.ours:
            ending.callback(house.stop)
        show("training")
        trained = lesson.result()
    broker = {"apache": "Apache Kafka", "tansu": "Tansu (a Kafka broker in memory)"}[house.kafka]
    how = "started" if house.fresh else "still running from before"
    tell.say(f"Everything is ready, on {broker}: {how} ({tell.seconds:.1f} s).", "dim")
    receivers = stack.enter_context(Receivers(house.smtp_port))
    workspace = play(tell, house, receivers, trained, work)
    if keep:
        house.keep()
        ending.pop_all()
    return workspace, house
