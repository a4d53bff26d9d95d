import asyncio
from collections.abc import Callable

import pytest

from kit.errors import Transient
from kit.tasks import repeat


async def told(results: list[object]) -> list[str]:
    """What happens, in order, until the results run out."""
    happened: list[str] = []
    left = iter(results)

    async def step() -> object:
        found = next(left, None)
        if found is None:
            raise asyncio.CancelledError
        happened.append("step")
        if isinstance(found, Exception):
            raise found
        return found

    async def pause() -> None:
        happened.append("pause")

    with pytest.raises(asyncio.CancelledError):
        await repeat(step, pause, "test")
    return happened


@pytest.mark.parametrize(
    ("results", "happens"),
    [
        ([1, True, 0], "step step step pause"),
        ([Transient("away"), 1], "step pause step"),
        ([False, ConnectionError("away"), False], "step pause step pause step pause"),
    ],
)
async def test_a_step_that_gives_something_is_followed_by_the_next_at_once(results: list[object], happens: str) -> None:
    assert await told(results) == happens.split()


@pytest.mark.parametrize("error", [ValueError, KeyError])
async def test_what_will_not_pass_is_raised(error: Callable[[str], Exception]) -> None:
    with pytest.raises((ValueError, KeyError), match="a bug"):
        await told([1, error("a bug"), 1])
