"""HTTP in: whom a pseudonym stands for, and their erasure. What is recorded of a question is never a name."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from audit.access import AccessLog
from audit.answers import Answer
from audit.people.keeper import Keeper
from contracts.access import Action
from contracts.payload import Reason
from contracts.people import Pseudonym
from kit.auth import Principal
from kit.problems import Problem
from kit.web import Guard

Document = dict[str, Any]
Whom = Annotated[Pseudonym, Path()]
Name = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Person(Answer):
    """`name`: a subject (`person`), or an address of the `accounts`. `commitment` is the SHA-256 of the salt (hex) and
    the canonical JSON of `issuer` and `name`; `as_announced`: it is the one in the log, null: the log has none yet."""

    pseudonym: str
    name: str
    issuer: str
    person: bool
    addresses: list[str]
    accounts: list[str]
    first_seen: datetime
    last_seen: datetime
    salt: str
    commitment: str
    as_announced: bool | None


class Persons(Answer):
    items: list[Person]


class Erased(Answer):
    """`also`: addresses that went too; `kept`: those that somebody else has as well."""

    pseudonym: str
    also: list[str]
    kept: list[str]


def router(guard: Guard, access: AccessLog, keeper: Keeper | None) -> APIRouter:
    """`keeper` None: the vault is off."""
    api = APIRouter(tags=["people"])
    Caller = Annotated[Principal, Depends(guard)]

    def vault() -> Keeper:
        if keeper is None:
            raise Problem(404, "no-vault", "there is no vault of identities here: the log names people as tokens do")
        return keeper

    Vault = Annotated[Keeper, Depends(vault)]

    @api.get("/v1/people", summary="The pseudonym of a subject or an e-mail address", response_model=Persons)
    async def find(caller: Caller, vault: Vault, subject: Name) -> Document:
        await access.admit(caller, "GET /v1/people?subject=(withheld)")
        return {"items": await vault.find(subject)}

    @api.get("/v1/people/{pseudonym}", summary="Whom a pseudonym stands for", response_model=Person)
    async def show(caller: Caller, vault: Vault, pseudonym: Whom) -> Document:
        await access.admit(caller, f"GET /v1/people/{pseudonym}")
        return await vault.show(pseudonym)

    @api.delete(
        "/v1/people/{pseudonym}",
        summary="Erase whom a pseudonym stands for: the log keeps the pseudonym, and nothing tells who it was",
        response_model=Erased,
    )
    async def erase(caller: Caller, vault: Vault, pseudonym: Whom, reason: Annotated[Reason, Query()]) -> Document:
        await access.admit(caller, f"DELETE /v1/people/{pseudonym}", Action.MANAGE_PEOPLE)
        return await vault.erase(pseudonym, caller.subject, reason)

    return api
