"""Commands as they are stored where there is a vault of identities: people in them are pseudonyms."""

from typing import Any, TypeVar

from contracts.registry import RegisterVersion
from kit.nameless import refuse_addresses
from kit.people import People

C = TypeVar("C")


async def nameless(command: C, people: People) -> C:
    """The command with pseudonyms for the owner and the committers: policies keep committers from voting, so they must
    be called as their tokens are.

    Raises:
        Problem: 422, an e-mail address is in a text.
    """
    given: Any = command
    if isinstance(given, RegisterVersion):
        content, lineage = given.content, given.content.lineage
        committers = [await people.stand_in(name) for name in lineage.committers]
        owner = await people.meant(content.owner) if content.owner else None
        lineage = lineage.model_copy(update={"committers": tuple(dict.fromkeys(committers))})
        given = given.model_copy(update={"content": content.model_copy(update={"lineage": lineage, "owner": owner})})
    elif getattr(given, "owner", None):
        given = given.model_copy(update={"owner": await people.meant(given.owner)})
    refuse_addresses(given.model_dump(mode="json"))
    named: C = given
    return named
