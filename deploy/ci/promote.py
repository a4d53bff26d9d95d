"""A pipeline's part in a promotion: register, attach the evaluation, compare, ask for the stage, gate the job.

    pip install hallmark-registry
    MODEL=fraud ARTIFACT=model.onnx METRICS="accuracy=0.94 auc=0.91" python deploy/ci/promote.py

Settings, all from the environment: HALLMARK_URL, HALLMARK_TOKEN, HALLMARK_WORKSPACE; MODEL, ARTIFACT; METRICS and
PARAMS (NAME=VALUE, by spaces or lines); DATASETS (paths, `.dvc` files or `dvc.lock`, by lines); EVALUATION (a file that
is attached as evidence of type EVALUATION_TYPE); STAGE (Staging), REASON, WAIT (600 seconds for the decision); COMMENT
(hallmark-comment.md: where the comparison goes); OUTPUT (hallmark.env: version, status and transition, as NAME=VALUE);
RUN (what identifies this run of the pipeline: a second attempt goes on with the version of the first).

Exit: 0 the version is in the stage, 3 people are awaited, 4 refused, 1 failed.
"""

import os
import sys
from pathlib import Path
from typing import Any

from hallmark import Client, HallmarkError, Version
from hallmark.comparison import markdown

DONE, FAILED, AWAITING, REFUSED = 0, 1, 3, 4


def setting(name: str, default: str | None = None) -> str:
    found = os.environ.get(name) or default
    if found is None:
        raise HallmarkError("missing-setting", f"set {name}; the head of {Path(__file__).name} lists all settings")
    return found


def pairs(name: str) -> dict[str, str]:
    found = [word.partition("=") for word in setting(name, "").split()]
    if wrong := [key for key, separator, _ in found if not separator]:
        raise HallmarkError("bad-setting", f"{name}: {wrong[0]!r} is not NAME=VALUE")
    return {key: value for key, _, value in found}


def metrics() -> dict[str, float]:
    try:
        return {name: float(value) for name, value in pairs("METRICS").items()}
    except ValueError as error:
        raise HallmarkError("bad-setting", f"METRICS: {error}") from error


def version_of(client: Client, model: str, run: str) -> Version:
    """Of an earlier attempt of this run, or a new one."""
    tags = {"ci_run": run} if run else {}
    if run:
        try:
            quoted = run.replace("'", "")
            for found in client.search_versions(f"tags.ci_run = '{quoted}'", model=model, limit=1):
                return client.version(model, found.version)
        except HallmarkError as error:
            if error.status != 404:  # no such model yet
                raise
    details: dict[str, Any] = {"metrics": metrics(), "parameters": pairs("PARAMS"), "tags": tags}
    datasets = [line.strip() for line in setting("DATASETS", "").splitlines() if line.strip()]
    return client.register(model, setting("ARTIFACT"), datasets=datasets, **details)


def comparison(client: Client, model: str, version: int) -> str:
    try:
        now = client.resolve(model).version
    except HallmarkError as error:
        if error.status not in (404, 410):
            raise
        return f"### {model}: v{version}\n\nNothing is in Production to compare it with.\n"
    if now == version:
        return f"### {model}: v{version}\n\nIt is in Production.\n"
    return markdown(model, client.compare(model, now, version))


def main() -> int:
    model, stage, run = setting("MODEL"), setting("STAGE", "Staging"), setting("RUN", "").replace("'", "")
    with Client() as client:
        made = version_of(client, model, run)
        print(f"{model} version {made.version}: {made.status}, {made.stage}")
        if evaluation := os.environ.get("EVALUATION"):
            kind = setting("EVALUATION_TYPE", "evaluation")
            client.attach_evidence(model, made.version, kind, "evaluation of the pipeline", file=Path(evaluation))
        comment = Path(setting("COMMENT", "hallmark-comment.md"))
        comment.write_text(comparison(client, model, made.version), encoding="utf-8")
        status, transition = "applied", ""
        if made.stage.lower() != stage.lower():
            reason = setting("REASON", "asked for by the pipeline")
            asked = client.request_stage(model, made.version, stage, reason, wait=float(setting("WAIT", "600")))
            status, transition = asked.status, asked.transition_id
            told = f": {asked.detail}" if asked.detail else ""
            comment.write_text(f"{comment.read_text('utf-8')}\n{stage}: **{status}**{told}\n", encoding="utf-8")
            print(f"{stage}: {status}{told}")
            if asked.open:
                print(f"awaiting approval: hallmark request approve {transition}")
        with Path(setting("OUTPUT", "hallmark.env")).open("a", encoding="utf-8") as output:
            output.write(f"version={made.version}\nstatus={status}\ntransition={transition}\n")
    return {"applied": DONE, "open": AWAITING}.get(status, REFUSED)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(REFUSED if error.refused else FAILED)
