"""Documents as text: YAML read strictly, with the line of every field."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from contracts.canonical import canonical_json

MAX_DEPTH = 20
_NUMBER = r"-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]{1,2})?"
_INTEGER = r"-?(?:0|[1-9][0-9]{0,17})"
# Control characters, and those that turn the direction of a text: it would not say what people read.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
Model = TypeVar("Model", bound=BaseModel)
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a document. `line` counts from 1."""

    line: int
    field: str
    message: str


class PolicyError(ValueError):
    """A document that cannot be read as what it should be."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(f"line {m.line}, {m.field or 'document'}: {m.message}" for m in mistakes))


class Reader:
    """YAML to plain values, with the line of each path. Refuses what JSON cannot say: doubled keys, aliases, dates; and
    what people would read otherwise: 010 (which is 8), and characters that are not seen.

    `numbers`: 0.95 is a number, too; policies have no use for one.
    """

    def __init__(self, *, numbers: bool = False) -> None:
        self.lines: dict[Path, int] = {}
        self._numbers = numbers
        self._scalars = yaml.SafeLoader("")

    def read(self, text: str) -> tuple[Any, dict[Path, int]]:
        if hidden := _HIDDEN.search(text.replace("\r\n", " \n")):
            line = text.count("\n", 0, hidden.start()) + 1
            raise PolicyError([Mistake(line, "", _unseen(hidden))])
        try:
            depth = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise _at(event.start_mark, "", "aliases are not allowed")
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > MAX_DEPTH:  # the parser's time grows with the square of it
                    raise _at(event.start_mark, "", f"nested more than {MAX_DEPTH} deep")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is None:
                raise PolicyError([Mistake(1, "", "empty")])
            return self._value(node, ()), self.lines
        except yaml.MarkedYAMLError as error:
            raise _at(error.problem_mark, "", f"not YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            if isinstance(error, PolicyError):
                raise
            raise PolicyError([Mistake(1, "", f"not YAML: {_first_line(error)}")]) from error

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        where = ".".join(str(part) for part in path)
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise _at(node.start_mark, where, f"unknown tag {node.tag}")
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = self._scalar(key_node, where) if isinstance(key_node, yaml.ScalarNode) else None
                if not isinstance(key, str):
                    raise _at(key_node.start_mark, where, "keys must be text")
                if key in found:
                    raise _at(key_node.start_mark, where, f"{key!r} is given twice")
                found[key] = self._value(value_node, (*path, key))
                self.lines[(*path, key)] = key_node.start_mark.line + 1
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, n)) for n, item in enumerate(node.value)]
        value = self._scalar(node, where)
        if isinstance(value, int) and not isinstance(value, bool) and not re.fullmatch(_INTEGER, node.value):
            raise _at(node.start_mark, where, "write it as a plain number, such as 8, or in quotes")
        number = self._numbers and isinstance(value, float) and re.fullmatch(_NUMBER, node.value)
        if not (number or isinstance(value, str | int | bool | None)):
            raise _at(node.start_mark, where, "write it in quotes")
        return value

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            value = self._scalars.construct_object(node)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # What PyYAML says of `!!bool x` and the like.
            raise _at(node.start_mark, where, f"no {node.tag.rpartition(':')[2]}") from error
        if isinstance(value, str) and (hidden := _HIDDEN.search(value)):
            raise _at(node.start_mark, where, _unseen(hidden))
        return value


def checked(model: type[Model], data: Any, lines: dict[Path, int]) -> Model:
    """What was read, as that model.

    Raises:
        PolicyError: with every mistake, its line and its field.
    """
    try:
        return model.model_validate_json(canonical_json(data), strict=True)
    except UnicodeEncodeError as error:
        raise PolicyError([Mistake(1, "", "holds half a character (a lone surrogate)")]) from error
    except ValidationError as error:
        raise PolicyError(_mistakes(error.errors(include_url=False), lines)) from error


def _mistakes(errors: Sequence[Any], lines: dict[Path, int]) -> list[Mistake]:
    """One for each place of the document. What does not fit any of several types has an error for each of them."""
    found: dict[Path, list[str]] = {}
    for error in errors:
        # Items that are wrong are not counted: that there are too few of them is no mistake of its own.
        if error["type"] == "too_short" and any(_inside(other["loc"], error["loc"]) for other in errors):
            continue
        message = {"extra_forbidden": "unknown field", "missing": "missing"}.get(error["type"], error["msg"])
        path = _near(error["loc"], lines)
        place = (*path, error["loc"][-1]) if error["type"] == "missing" else path
        found.setdefault(place, []).append(message.removeprefix("Value error, "))
    return [
        Mistake(lines.get(_near(place, lines), 1), ".".join(map(str, place)), ", or ".join(messages))
        for place, messages in found.items()
    ]


def _near(path: Path, lines: dict[Path, int]) -> Path:
    """As much of the path as the document has: pydantic's also names the types that it tried."""
    return next((path[:n] for n in range(len(path), -1, -1) if path[:n] in lines), ())


def _inside(path: Path, outer: Path) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def _unseen(hidden: re.Match[str]) -> str:
    return f"holds a character that is not seen (U+{ord(hidden[0]):04X})"


def _at(mark: Any, field: str, message: str) -> PolicyError:
    return PolicyError([Mistake(mark.line + 1 if mark else 1, field, message)])


def _first_line(error: Exception) -> str:
    return re.split(r"\n", str(error))[0][:200] or type(error).__name__
