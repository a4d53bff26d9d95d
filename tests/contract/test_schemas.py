"""The checked-in schemas are the contract: generated, closed, and never changed incompatibly."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsoncompat import check_compat
from pydantic import Field, create_model

from contracts import approval, audit, catalog, notifier, registry
from contracts.catalog import MESSAGES, schema_files, schema_of
from contracts.payload import Message, Payload

ROOT = Path(catalog.__file__).parents[4]
SCHEMAS = ROOT / "libs/contracts/schemas"
EVENTS = (*registry.EVENTS, *approval.EVENTS, *notifier.EVENTS, *audit.EVENTS)
# A command is an order; an event is a fact, in the past tense.
PAST = re.compile(r"hallmark\.[a-z]+\.(?:[a-z]+ed|broken|cast|dead|given|known|overdue|ran|rebound|seen|withdrawn)\.v1")
ORDER = re.compile(r"hallmark\.[a-z]+\.[a-z]+(?:-[a-z]+)*\.v1")


def readers_accept(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether readers that know `new` take all that was written under `old`: records stay in Kafka for years."""
    return bool(check_compat(_without_id(old), _without_id(new), "deserializer"))


def _without_id(schema: dict[str, Any]) -> str:
    """jsoncompat resolves '#/$defs' against '$id' and then refuses it as remote."""
    return json.dumps({name: value for name, value in schema.items() if name != "$id"})


def published() -> dict[str, dict[str, Any]]:
    """What stored records were written under: the frozen copies. `make publish-schemas` adds to them, nothing changes
    them; the last commit would be no past to compare with, since on a clean checkout it is the tree itself."""
    return {path.name: json.loads(path.read_text()) for path in sorted((SCHEMAS / "published").glob("*.json"))}


PUBLISHED = published()


def test_generated_schemas_are_the_ones_checked_in() -> None:
    checked_in = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert checked_in == schema_files(), "run: python -m contracts.catalog libs/contracts/schemas"


def test_everything_said_so_far_is_published() -> None:
    """A `.v1` may get a `.v2` beside it; it never goes away."""
    assert set(PUBLISHED) == set(schema_files()), "run: make publish-schemas"


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_no_incompatible_change_of_what_is_published(name: str) -> None:
    old = PUBLISHED[f"{name}.json"]
    assert readers_accept(old, schema_of(MESSAGES[name])), f"{name} changed: readers would refuse stored records"


class Old(Message):
    TYPE = "hallmark.thing.changed.v1"
    name: str
    size: int = Field(ge=0)


def changed(**fields: Any) -> dict[str, Any]:
    new: type[Message] = create_model("New", __base__=Message, **fields)
    new.TYPE = Old.TYPE
    return schema_of(new)


def test_an_added_optional_field_is_compatible() -> None:
    assert readers_accept(schema_of(Old), changed(name=(str, ...), size=(int, Field(ge=0)), note=(str, "")))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": (str, ...)},
        {"name": (str, ...), "size": (int, Field(ge=0)), "owner": (str, ...)},
        {"name": (int, ...), "size": (int, Field(ge=0))},
        {"name": (str, ...), "size": (int, Field(ge=1))},
        {"title": (str, ...), "size": (int, Field(ge=0))},
        {"name": (str, Field(max_length=10)), "size": (int, Field(ge=0))},
    ],
    ids=["field-removed", "field-required", "type-changed", "bound-raised", "renamed", "text-shortened"],
)
def test_an_incompatible_change_is_refused(fields: dict[str, Any]) -> None:
    assert not readers_accept(schema_of(Old), changed(**fields))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_mutated_published_schema_is_refused(name: str) -> None:
    """The same check on the real files: every one of them can make it fail."""
    old = PUBLISHED[name]
    new = json.loads(json.dumps(old))
    new["properties"]["added_and_required"] = {"type": "string"}
    new["required"] = [*new.get("required", []), "added_and_required"]
    assert not readers_accept(old, new)
    added = json.loads(json.dumps(old))
    added["properties"]["added_and_optional"] = {"type": "string", "default": ""}
    assert readers_accept(old, added)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_schemas_are_closed(name: str) -> None:
    """Every object either names its fields and no others, or is a map whose values have a type."""
    schema = schema_of(MESSAGES[name])
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            assert part["additionalProperties"] is False, part.get("title")


def test_every_payload_is_strict_and_frozen() -> None:
    kinds = [Payload]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert kind.model_config.get("extra") == "forbid", kind
        assert kind.model_config.get("frozen") is True, kind
        assert kind.model_config.get("allow_inf_nan") is False, kind


def test_no_message_is_forgotten_and_no_type_is_used_twice() -> None:
    listed = (*registry.COMMANDS, *EVENTS)
    assert len({message.TYPE for message in listed}) == len(listed) == len(MESSAGES)
    concrete = {
        value
        for module in (registry, approval, notifier, audit)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value is not Message
    }
    assert concrete == set(listed)


@pytest.mark.parametrize("message", EVENTS, ids=lambda m: m.TYPE)
def test_events_are_named_as_facts(message: type[Message]) -> None:
    assert PAST.fullmatch(message.TYPE), message.TYPE


@pytest.mark.parametrize("message", registry.COMMANDS, ids=lambda m: m.TYPE)
def test_commands_are_named_as_orders(message: type[Message]) -> None:
    assert ORDER.fullmatch(message.TYPE)
    assert not PAST.fullmatch(message.TYPE)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda m: m.TYPE)
def test_the_schema_names_its_type(message: type[Message]) -> None:
    assert schema_of(message)["$id"] == f"{message.TYPE}.json"
