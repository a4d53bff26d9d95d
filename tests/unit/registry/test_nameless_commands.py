"""What a command's envelope says is taken over by events: with the vault on it may have no address in it."""

from typing import Any, cast

import pytest

from contracts.envelope import Envelope
from contracts.registry import Tags, TagVersion
from kit.bus import Record
from kit.problems import Problem
from registry.commands import Commands
from registry.consumers import CommandHandler


class Kept:
    """A record, and what was done for it."""

    place, timestamp_ms = "t/0/1", 1

    def __init__(self, **attributes: Any) -> None:
        message = TagVersion(workspace="w", model="m", version=1, tags=Tags(set={"a": "b"}))
        self._envelope = Envelope.of(message, source="s", subject="x", key="k", **attributes)

    def envelope(self) -> Envelope:
        return self._envelope


@pytest.mark.parametrize("attributes", [{"event_id": "for-ana@corp.example"}, {"correlationid": "ana@corp.example"}])
async def test_an_address_in_an_envelope_is_refused(attributes: dict[str, str]) -> None:
    none: Any = None
    people: Any = object()
    commands = Commands(none, none, none, none, none, transition_hours=1, people=people)
    handler = CommandHandler(none, none, commands, none)
    with pytest.raises(Problem) as refused:
        await handler(cast(Record, Kept(**attributes)))
    assert refused.value.code == "personal-data"
