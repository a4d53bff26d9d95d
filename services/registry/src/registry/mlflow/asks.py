"""A request as MLflow's clients send it: parameters of the query or of a JSON body, under MLflow's rules."""

import json
import posixpath
import re
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from kit.auth import Principal
from registry.mlflow.errors import INVALID, Refusal

SEE = "See the API docs for more information about request parameters."
KEY = re.compile(r"[/\w.\- :]*")
ALIAS = re.compile(r"[\w\-]*")
VERSION_ALIAS = re.compile(r"[vV]\d+")
MAX_KEY, MAX_VALUE, MAX_ALIAS = 250, 100_000, 255
MAX_NUMBER = 2_147_483_647


@dataclass(frozen=True)
class Ask:
    """One call. `given` has a parameter of the query as a text, or as a list where it is repeated."""

    request: Request
    caller: Principal
    workspace: str
    given: dict[str, Any]

    def maybe(self, name: str) -> str | None:
        """A text, or None. Raises Refusal when it is something else."""
        value = self.given.get(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, value)
        return value

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value = self.maybe(name)
        if not value:
            raise _missing(name)
        return value

    def texts(self, name: str) -> list[str]:
        value = self.given.get(name)
        values = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise _wrong(name, value)
        return values

    def flag(self, name: str) -> bool:
        value = self.given.get(name, False)
        if not isinstance(value, bool):
            raise _wrong(name, value)
        return value

    def limit(self, default: int, most: int) -> int:
        """`max_results`, from 1 to `most`."""
        given = self.given.get("max_results", default)
        try:
            value = int(given)
        except (TypeError, ValueError) as error:
            raise _wrong("max_results", given) from error
        if value > most:
            detail = f"It must be at most {most}, but got value {value}"
            raise Refusal(INVALID, f"Invalid value for request parameter max_results. {detail}")
        if value < 1:
            detail = f"It must be a positive integer, but got {value}"
            raise Refusal(INVALID, f"Invalid value for max_results. {detail}")
        return value

    def name(self, parameter: str = "name") -> str:
        """The name of a registered model."""
        name = self.text(parameter)
        if not name.strip():
            raise _missing(parameter)
        if "/" in name or ":" in name:
            raise Refusal(INVALID, f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
        _check_path(parameter, name)
        return name

    def version(self) -> int:
        """The number of a version. For one that no version can have: the highest number there may be."""
        given = self.text("version")
        try:
            number = int(given)
        except ValueError as error:
            raise Refusal(INVALID, f"Parameter 'version' must be an integer, got '{given}'.") from error
        return number if 0 < number < MAX_NUMBER else MAX_NUMBER

    def key(self) -> str:
        """The key of a tag."""
        return _key(self.text("key"))

    def value(self) -> str:
        """The value of a tag; left out it is empty."""
        return _value(self.maybe("value") or "")

    def tags(self) -> dict[str, str]:
        """`tags`, a list of `{"key", "value"}`. The last of a key counts."""
        given = self.given.get("tags") or []
        if not isinstance(given, list) or not all(isinstance(tag, dict) for tag in given):
            raise _wrong("tags", given)
        found: dict[str, str] = {}
        for tag in given:
            key, value = tag.get("key"), tag.get("value", "")
            if not isinstance(key, str) or not isinstance(value, str):
                raise _wrong("tags", given)
            found[_key(key)] = _value(value)
        return found

    def alias(self) -> str:
        alias = self.text("alias")
        if not ALIAS.fullmatch(alias):
            allowed = "Names may only contain alphanumerics, underscores (_), and dashes (-)."
            raise Refusal(INVALID, f"Invalid alias name: '{alias}'. {allowed}")
        check_length("Registered model alias name", alias, MAX_ALIAS)
        return alias


def check_reserved(alias: str) -> None:
    """Raises Refusal for an alias that has a meaning of its own."""
    if alias.lower() == "latest":
        raise Refusal(INVALID, "'latest' alias name (case insensitive) is reserved.")
    if VERSION_ALIAS.fullmatch(alias):
        raise Refusal(INVALID, f"Version alias name '{alias}' is reserved.")


async def parameters(request: Request) -> dict[str, Any]:
    """Raises Refusal for a body that is not a JSON object."""
    if request.method == "GET":
        query = request.query_params
        return {name: many[0] if len(many := query.getlist(name)) == 1 else many for name in query}
    try:
        body = await request.body()
        found = json.loads(body) if body else {}
        if isinstance(found, str):  # older clients write the JSON as a JSON text
            found = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise Refusal(INVALID, f"The body is not JSON. {SEE}") from error
    if not isinstance(found, dict):
        raise Refusal(INVALID, f"The body is not a JSON object. {SEE}")
    return found


def _key(key: str) -> str:
    if not key:
        raise _missing("key")
    if not KEY.fullmatch(key):
        allowed = "alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        raise _invalid("key", key, f"Names may only contain {allowed}")
    _check_path("key", key)
    check_length("key", key, MAX_KEY)
    return key


def _value(value: str) -> str:
    check_length("value", value, MAX_VALUE)
    return value


def _check_path(parameter: str, name: str) -> None:
    path = posixpath.normpath(name)
    if path != name or path == "." or path.startswith(("..", "/")):
        detail = (
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
            f"This name would resolve to {path!r}"
        )
        raise _invalid(parameter, name, detail)


def check_length(what: str, text: str, most: int) -> None:
    """Raises Refusal for a text that is longer."""
    if len(text) > most:
        raise Refusal(INVALID, f"'{what}' exceeds the maximum length of {most} characters")


def _missing(parameter: str) -> Refusal:
    return Refusal(INVALID, f"Missing value for required parameter '{parameter}'. {SEE}")


def _wrong(parameter: str, value: Any) -> Refusal:
    return _invalid(parameter, value, f" Hint: Value was of type '{type(value).__name__}'. {SEE}")


def _invalid(parameter: str, value: Any, detail: str) -> Refusal:
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return Refusal(INVALID, f"Invalid value {shown[:500]} for parameter '{parameter}' supplied: {detail}")
