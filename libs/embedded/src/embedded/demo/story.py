"""The main job, told from training to rollback. Every claim on the screen is checked; a false one ends the demo."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.model import Environment
from embedded.demo.server import Server
from embedded.demo.tell import Teller, Unexpected
from embedded.demo.training import Trained
from hallmark import Client, HallmarkError, Transition, Version
from hallmark.artifacts import sha256_file
from hallmark.output import text
from hallmark.publish import Publisher

MODEL = "breast-cancer"
WAIT = 30.0


@dataclass
class Cast:
    """Who acts. Each has a client with a token of their own."""

    ana: Client  # an ML engineer
    ben: Client  # a reviewer
    olga: Client  # an operator
    aud: Client  # an auditor
    rita: Client  # a risk officer
    root: Client  # an administrator
    ada: Client  # another one
    trainer: Client  # the training service
    ci: Client  # what checks models


@dataclass
class Story:
    tell: Teller
    cast: Cast
    publisher: Callable[[], Publisher]
    workspace: str
    trained: dict[str, Trained]
    moments: list[tuple[datetime, int]] = field(default_factory=list)

    def register(self) -> None:
        """v1 over HTTP, v2 by a Kafka command."""
        self.tell.chapter("Register two versions: one over HTTP, one through Kafka")
        tree, logistic = self.trained["tree"], self.trained["logistic"]
        v1 = self.cast.ana.register(MODEL, tree.file, **details(tree))
        content = self.cast.trainer.content(logistic.file, **details(logistic))

        async def publish() -> int:
            async with self.publisher() as publisher:
                answer = await publisher.register(MODEL, content, workspace=self.workspace, wait=WAIT)
            return answer.version

        number = asyncio.run(publish())
        v2 = self.cast.ana.version(MODEL, number)
        self.tell.table(
            ("version", "what", "sent by", "accuracy", "artifact", "data set", "git commit"),
            [row(v1, tree, "HTTP (SDK)"), row(v2, logistic, "Kafka command")],
        )
        self.tell.expect(
            (v1.version, v1.registered_by, v2.version, v2.registered_by) == (1, "ana", 2, "trainer"),
            "v1 was registered by ana, v2 by the service account trainer",
            (v1.registered_by, v2.registered_by),
        )
        source = sha256_file(Path(tree.dataset_file))
        recorded = [v.content["lineage"]["datasets"][0]["digest"] for v in (v1, v2)]
        self.tell.expect(
            v1.metrics == tree.metrics and v2.metrics == logistic.metrics and recorded == [source, source],
            "both carry the measured metrics, the parameters and the digest of the data",
        )
        packages = v1.content["environment"]["packages"]
        self.tell.expect(
            {"scikit-learn", "skl2onnx"} <= set(packages),
            f"and what they were made with: Python {v1.content['environment']['python']}, {len(packages)} packages, "
            f"among them scikit-learn {packages.get('scikit-learn')}",
        )

    def first_production(self) -> None:
        self.tell.chapter("v1 to Staging, then to Production")
        staged = self.cast.ana.request_stage(MODEL, 1, "Staging", "first candidate", wait=WAIT)
        self.tell.expect(staged.applied, "Staging: the policy asks nobody, v1 entered at once", staged.detail)
        asked = self.cast.ana.request_stage(MODEL, 1, "Production", "first model for the clinic", wait=0)
        request = self.cast.ben.request(asked.transition_id, wait=WAIT)
        self.show_gates(request.gates)
        self.tell.expect(
            request.status == "open" and all(gate.result == "pass" for gate in request.gates),
            "Production: the gate passed; now a reviewer who did not ask must agree",
            request.status,
        )
        self.refused_vote(asked.transition_id)
        self.approve(asked, "evaluation reviewed, held-out rows are representative")
        self.moments.append(self.now(1))

    def worse(self) -> None:
        self.tell.chapter("A worse version does not get in")
        hasty = self.trained["hasty"]
        v3 = self.cast.ana.register(MODEL, hasty.file, **details(hasty))
        self.cast.ana.request_stage(MODEL, v3.version, "Staging", "quick try", wait=WAIT)
        asked = self.cast.ana.request_stage(MODEL, v3.version, "Production", "it is so small", wait=WAIT)
        self.tell.say(f"v{v3.version} is {hasty.about}: accuracy {text(hasty.metrics['accuracy'])}")
        self.show_gates(asked.criteria)
        self.tell.expect(
            asked.status == "refused" and [c.result for c in asked.criteria] == ["fail"],
            "the gate failed, nobody was asked, and the reason is on record",
            (asked.status, asked.detail),
        )
        pin = self.cast.ana.resolve(MODEL)
        self.tell.expect(pin.version == 1, "Production still holds v1", pin.version)

    def promote(self, server: Server) -> None:
        self.tell.chapter("Compare v1 and v2, promote v2")
        found = self.cast.ana.compare(MODEL, 1, 2)
        self.show_comparison(found)
        gain = found["metrics"]["accuracy"]["differences"][1]
        self.tell.expect(gain > 0, f"v2 is more accurate by {gain * 100:.1f} points")
        self.cast.ana.request_stage(MODEL, 2, "Staging", "better on held-out rows", wait=WAIT)
        asked = self.cast.ana.request_stage(MODEL, 2, "Production", f"accuracy +{gain * 100:.1f} points", wait=0)
        self.cast.ben.request(asked.transition_id, wait=WAIT)
        self.approve(asked, "clear gain, same data, same inputs")
        self.moments.append(self.now(2))
        stage = self.cast.ana.version(MODEL, 1).stage
        self.tell.expect(stage == "Archived", "v1 was archived in the same transaction", stage)
        self.served(server, 2, 2)

    def roll_back(self, server: Server) -> None:
        self.tell.chapter("Roll back, with a reason")
        why = "the clinic sees more false alarms than in the evaluation"
        done = self.cast.olga.rollback(MODEL, why, wait=WAIT)
        self.moments.append(self.now(1))
        self.tell.say(f"olga, operator: “{why}”")
        self.tell.expect(
            done.applied and (done.kind, done.version) == ("rollback", 1),
            "v1 is in Production again: it had been approved there before, so nobody is asked",
            done.detail,
        )
        self.served(server, 3, 1)

    def now(self, version: int) -> tuple[datetime, int]:
        """This moment, when that version is in Production."""
        return datetime.now(UTC), version

    def served(self, server: Server, number: int, version: int) -> None:
        """The serving process says that it runs `version`, at its registered accuracy."""
        with self.tell.waiting("waiting for the serving process to swap"):
            said = server.swap(number)
        registered = self.cast.ana.version(MODEL, version).metrics["accuracy"]
        same = said["pid"] == server.heard[0]["pid"]
        how = "" if number == 1 else "swapped without a restart, and "
        self.tell.expect(
            said["version"] == version and same and abs(said["accuracy"] - registered) < 1e-12,
            f"the serving process (pid {said['pid']}) {how}predicts with v{said['version']}: accuracy "
            f"{said['accuracy']:.4f} on held-out rows, as registered",
            said,
        )

    def refused_vote(self, request_id: str) -> None:
        try:
            self.cast.ana.vote(request_id, "approve", "looks good to me")
        except HallmarkError as error:
            self.tell.expect(error.refused, f"ana's own vote is refused: “{error.detail}” [{error.code}]", error)
        else:
            raise Unexpected("ana could vote on her own request")

    def approve(self, asked: Transition, comment: str) -> None:
        self.cast.ben.vote(asked.transition_id, "approve", comment)
        done = self.cast.ana.wait_for(asked, WAIT)
        self.tell.expect(
            done.applied and [a["name"] for a in done.approved_by] == ["ben"],
            f"ben approved (“{comment}”): v{done.version} is in {done.to_stage}",
            (done.status, done.detail),
        )

    def show_gates(self, gates: Any) -> None:
        self.tell.table(
            ("gate", "expression", "result", "evidence"), [(g.gate, g.expression, g.result, g.message) for g in gates]
        )

    def show_comparison(self, found: dict[str, Any]) -> None:
        rows: list[tuple[object, ...]] = [
            (name, *metric["values"], f"{metric['differences'][1]:+.4f}") for name, metric in found["metrics"].items()
        ]
        rows += [(name, *values, "") for name, values in found["parameters"].items()]
        self.tell.table(("", "v1", "v2", "difference"), rows)


def details(trained: Trained) -> dict[str, Any]:
    """What a training script says about its model; git is captured at registration."""
    return {
        "metrics": trained.metrics,
        "parameters": trained.parameters,
        "datasets": [trained.dataset_file],
        "environment": Environment.model_validate(trained.environment),
        "training_seconds": trained.seconds,
        "tags": {"task": "classification"},
        "notes": trained.about,
    }


def row(version: Version, trained: Trained, how: str) -> tuple[object, ...]:
    lineage = version.content["lineage"]
    return (
        f"v{version.version}",
        trained.about,
        f"{version.registered_by}, {how}",
        version.metrics["accuracy"],
        short(version.artifact.digest),
        short(lineage["datasets"][0]["digest"]),
        (lineage["git_commit"] or "-")[:10],
    )


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:10]
