"""When a saved search is due. Pure."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

SHORTEST, LONGEST = timedelta(seconds=60), timedelta(days=366)


def _whole(every: timedelta) -> timedelta:
    if every % timedelta(seconds=1):
        raise ValueError("it must be whole seconds")
    return every


# Seconds, or an ISO 8601 duration such as PT15M.
Every = Annotated[timedelta, Field(ge=SHORTEST, le=LONGEST), AfterValidator(_whole)]


def following(due: datetime, every: timedelta, at: datetime) -> datetime:
    """The first instant after `at` that is a whole number of `every` after `due`: what was missed is not made up."""
    return due + every * max(1, (at - due) // every + 1)
