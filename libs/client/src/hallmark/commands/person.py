"""`hallmark audit person`"""

from typing import Annotated

import typer

from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun
from hallmark.results import Identity

app = noun("person", "The vault of identities: whom pseudonyms in the log stand for, and their erasure.")
Pseudonym = Annotated[str, typer.Argument(help="As the log has it: p_ and 26 characters.", show_default=False)]


@app.command(epilog=example("hallmark audit person show p_b7kq2m5c3vfy6d4tqz2n7xw5ae"))
def show(ctx: typer.Context, pseudonym: Pseudonym, as_json: Json = False) -> None:
    """Show whom a pseudonym stands for, and whether that is what the log committed to."""
    with client(ctx) as hallmark:
        found = hallmark.identity(pseudonym)
    emit(as_json, found, lambda: _print(found))


@app.command(epilog=example("hallmark audit person find ana"))
def find(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The subject of their token, or an e-mail address.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Find the pseudonym of somebody."""
    with client(ctx) as hallmark:
        found = hallmark.identities(name)
    lines = [one.pseudonym for one in found] or ["nobody has that name"]
    emit(as_json, found, lambda: out.print("\n".join(lines)))


@app.command(epilog=example("hallmark audit person erase p_b7kq2m5c3vfy6d4tqz2n7xw5ae --reason 'asked for it'"))
def erase(
    ctx: typer.Context,
    pseudonym: Pseudonym,
    reason: Annotated[str, typer.Option(help="Why. It stays in the log, so it must not name them.")],
    as_json: Json = False,
) -> None:
    """Forget for good whom a pseudonym stands for. The log and its proofs stay as they are."""
    with client(ctx) as hallmark:
        done = hallmark.erase_identity(pseudonym, reason)
    also = f", and {', '.join(done.also)} too" if done.also else ""
    emit(as_json, done, lambda: out.print(f"{done.pseudonym} stands for nobody now{also}", soft_wrap=True))


def _print(found: Identity) -> None:
    proof = {
        True: "is what the log committed to",
        False: "IS NOT what the log committed to",
        None: "not in the log yet",
    }
    rows = [
        ("pseudonym", found.pseudonym),
        ("subject" if found.person else "address", found.name),
        ("issuer", found.issuer),
        ("addresses", found.addresses),
        ("accounts", found.accounts),
        ("first seen", found.first_seen),
        ("last seen", found.last_seen),
        ("commitment", f"{found.commitment}: {proof[found.as_announced]}"),
    ]
    out.print(table(("", ""), rows))
