"""Naming rules: regular expressions that take linear time, whatever somebody writes into them."""

from functools import lru_cache
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError


@lru_cache(maxsize=1_000)
def compiled(expression: str) -> TypeAdapter[str]:
    """Rust's engine: no look-around, no back-references, no catastrophes.

    Raises:
        ValueError: it is not such an expression; the text says why.
    """
    try:
        TypeAdapter(Annotated[str, StringConstraints(pattern=expression)])  # "a)|(b" must not break out of the group
        return TypeAdapter(Annotated[str, StringConstraints(pattern=f"^(?:{expression})$")])
    except SchemaError as error:
        raise ValueError(str(error).splitlines()[-1].strip()[:300]) from error


def matches(expression: str, name: str) -> bool:
    """Whether the whole name fits. Raises ValueError as `compiled`."""
    try:
        compiled(expression).validate_python(name)
    except ValidationError:
        return False
    return True
