"""`hallmark policy`"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from hallmark import engine
from hallmark.approval_output import exit_for, moment
from hallmark.approval_results import Mistake, PolicyChange, PolicyCheck, Request
from hallmark.client import Client
from hallmark.errors import HallmarkError
from hallmark.output import (
    FAILED,
    Json,
    ModelArgument,
    VersionArgument,
    client,
    emit,
    err,
    example,
    out,
    pairs,
    table,
)
from hallmark.output import app as noun
from hallmark.policies import INVALID, mistakes_of
from hallmark.policy_output import print_awaiting, print_change, print_explanation, print_simulation, print_trials

app = noun("policy", "Policies: who and what lets a version in. Written as YAML, changed under the rules in force.")
Kind = Literal["promotion", "rollback", "alias"]
FileArgument = Annotated[
    Path, typer.Argument(help="A policy (YAML).", exists=True, dir_okay=False, readable=True, show_default=False)
]


@app.command("list", epilog=example("hallmark policy list", "hallmark policy list --name production"))
def list_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Option(help="All revisions of this one.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the policies in force, or all revisions of one."""
    with client(ctx) as hallmark:
        found = hallmark.policies(name)
    rows = [(p.name, p.revision, p.published_by, p.published_at, p.digest) for p in found]
    columns = ("policy", "revision", "published by", "at (UTC)", "digest")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


@app.command(epilog=example("hallmark policy show production > production.yaml"))
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the policy.", show_default=False)],
    revision: Annotated[int | None, typer.Option(help="Instead of the one in force.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Print the text of a policy, as it was published."""
    with client(ctx) as hallmark:
        found = hallmark.policy(name, revision)
    about = f"policy {found.name} revision {found.revision}, by {found.published_by} at {moment(found.published_at)}"
    if not as_json:
        err.print(f"{about}, {found.digest}", style="dim", markup=False, soft_wrap=True)
    emit(as_json, found, lambda: print(found.document.rstrip("\n")))


@app.command(epilog=example("hallmark policy publish production.yaml --reason 'two reviewers from now on'"))
def publish(
    ctx: typer.Context,
    file: FileArgument,
    reason: Annotated[str, typer.Option(help="Why; kept for ever, and read by those who must agree.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait for those who must agree.", min=0)] = 0.0,
    as_json: Json = False,
) -> None:
    """Publish a policy, or ask for it. Exit 0: in force; 3: others must agree; 4: refused."""
    document = engine.read_text(file)
    with client(ctx) as hallmark, _mistakes_in(file, as_json):
        made = hallmark.publish_policy(document, reason)
        request = _asked(hallmark, made, wait, as_json) if made.request_id and not made.published else None
    published = made.published or (request is not None and request.status == "approved")
    if request is not None:
        made = made.model_copy(update={"published": published, "status": request.status})
    emit(as_json, made, lambda: print_change(made, request, waited=bool(wait)))
    if request is not None:
        exit_for(request)


@app.command(epilog=example("hallmark policy check policies/*.yaml"))
def check(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Policies (YAML).", readable=False)],
    by_service: Annotated[
        bool, typer.Option("--by-service", help="Ask the service even if this machine can read policies itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check policies: FILE:LINE: FIELD: what is wrong. Exit 1 when anything is.

    Tests of policies (*.test.yaml) are passed over. Needs no service where the extra is installed:
    pip install 'hallmark-registry\\[policy]'.
    """
    tests = [file for file in files if file.name.endswith(engine.TESTS)]
    for test in tests:
        err.print(f"{test} is no policy but a test: hallmark policy test {test}", style="dim", markup=False)
    files = [file for file in files if file not in tests]
    if not files:
        raise HallmarkError("no-policies", "there is no policy among these files")
    if engine.installed() and not by_service:
        found = [(file, _checked(file, engine.check)) for file in files]
    else:
        with client(ctx) as hallmark:
            found = [(file, _checked(file, hallmark.check_policy)) for file in files]
    _tell(found, as_json)
    if any(one.errors for _, one in found):
        raise typer.Exit(FAILED)


@app.command(epilog=example("hallmark policy schema > promotion-policy.schema.json"))
def schema() -> None:
    """Print the JSON Schema of policies, for your editor.

    Needs no service, but the policy engine: pip install 'hallmark-registry\\[policy]'.
    """
    print(json.dumps(engine.schema(), indent=1, sort_keys=True))


@app.command(epilog=example("hallmark policy explain fraud 4 --to Production"))
def explain(
    ctx: typer.Context,
    model: ModelArgument,
    version: VersionArgument,
    to: Annotated[str, typer.Option(help="A stage, or @ and an alias.", show_default=False)],
    from_stage: Annotated[str | None, typer.Option("--from", help="Default: the stage it is in.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Default: promotion, or alias.", show_default=False)] = None,
    reason: Annotated[str, typer.Option(help="The reason that you would give.")] = "",
    field: Annotated[list[str] | None, typer.Option(help="NAME=VALUE that you would give; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Show what it would take: which policies apply, which gates pass now, who may vote. Asks for nothing."""
    with client(ctx) as hallmark:
        found = hallmark.explain_policy(
            model, version, to, from_stage=from_stage, kind=kind, reason=reason, fields=pairs(field or [], "--field")
        )
    emit(as_json, found, lambda: print_explanation(model, version, to, found))


@app.command(epilog=example("hallmark policy simulate production.yaml --last 50"))
def simulate(
    ctx: typer.Context,
    file: FileArgument,
    last: Annotated[int, typer.Option(help="How many decided requests to look at.", min=1, max=500)] = 50,
    every: Annotated[bool, typer.Option("--all", help="List those too that it would have decided alike.")] = False,
    as_json: Json = False,
) -> None:
    """Show which past requests this policy would have decided otherwise. Changes nothing.

    A policy about policies is tried on past changes of policies.
    """
    document = engine.read_text(file)
    with client(ctx) as hallmark, _mistakes_in(file, as_json), err.status(f"deciding the last {last} requests again"):
        found = hallmark.simulate_policy(document, last=last)
    emit(as_json, found, lambda: print_simulation(found, every))


@app.command(
    "test", epilog=example("hallmark policy test policies", "hallmark policy test policies/production.test.yaml")
)
def run_tests(
    path: Annotated[
        Path, typer.Argument(help="A test, or where all of them (*.test.yaml) are.", metavar="DIR|FILE", exists=True)
    ] = Path(),
    every: Annotated[bool, typer.Option("--all", help="List the cases that pass too.")] = False,
    as_json: Json = False,
) -> None:
    """Run tests of policies: cases, and what the policies must make of them. Exit 1 when any fails.

    Needs no service, but the policy engine: pip install 'hallmark-registry\\[policy]'.
    """
    engine.require()
    with err.status("running the tests"):
        found = engine.run_tests(path)
    if not found:
        raise HallmarkError("no-tests", f"there is no *{engine.TESTS} below {path}")
    failed = sum(not trial.passed for trial in found)
    counts = {"passed": len(found) - failed, "failed": failed}
    emit(as_json, {**counts, "cases": found}, lambda: print_trials(found, every))
    if failed:
        raise typer.Exit(FAILED)


def _checked(file: Path, check: Callable[[str], PolicyCheck]) -> PolicyCheck:
    """What is wrong with the file. One that cannot be read says so, beside the others."""
    try:
        text = engine.read_text(file)
    except HallmarkError as error:
        return PolicyCheck(errors=[Mistake(line=1, field="", message=error.detail)])
    return check(text)


@contextmanager
def _mistakes_in(file: Path, as_json: bool) -> Iterator[None]:
    """What the service finds wrong with the document is told as `check` tells it, with the same exit code."""
    try:
        yield
    except HallmarkError as error:
        if error.code != INVALID:
            raise
        _tell([(file, mistakes_of(error))], as_json)
        raise typer.Exit(FAILED) from None


def _tell(checked: Sequence[tuple[Path, PolicyCheck]], as_json: bool) -> None:
    def render() -> None:
        for file, one in checked:
            for mistake in one.errors:
                field = f"{mistake.field}: " if mistake.field else ""
                out.print(f"{file}:{mistake.line}: {field}{mistake.message}", markup=False, soft_wrap=True)
            if not one.errors:
                out.print(f"{file}: policy {one.name}, {one.digest}", markup=False, soft_wrap=True)

    emit(as_json, [{"file": str(file), "valid": not one.errors, **one.model_dump()} for file, one in checked], render)


def _asked(hallmark: Client, made: PolicyChange, wait: float, as_json: bool) -> Request:
    """The request that has to be approved first, waited for if the caller wants that."""
    assert made.request_id is not None
    request = hallmark.request(made.request_id)
    if wait and request.open:
        if not as_json:
            print_awaiting(request)
        with err.status(escape(f"waiting for {request.waits_for or 'the decision'}")):
            request = hallmark.wait_for_request(request.request_id, wait)
    return request
