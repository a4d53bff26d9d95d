"""CEL expressions with a boolean result: type-checked when they are made, of a bounded cost when they are evaluated."""

import re
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

from policy.cost import MAX_COST, Size, TooCostly, Tree, size_of

MAX_EXPRESSION = 2_000
Kind = cel.Type


class ExpressionError(ValueError):
    """The expression cannot be used; the text says where and why."""


def environment(variables: Mapping[str, Any]) -> Any:
    """What expressions may look at: variables, whose names may have dots, and their kinds."""
    return cel.NewEnv(variables=dict(variables))


class Expression:
    """One compiled expression. `names`: the variables it names; `tree`: what it was compiled to.

    `usual` are the sizes of variables that an author may count on; the cost is checked with these when it is made, and
    again with what there is to look at. More than `most` steps are refused; `advice` says what to do then.
    """

    def __init__(
        self,
        text: str,
        environment: Any,
        usual: Mapping[str, Size],
        *,
        most: int = MAX_COST,
        advice: str = "ask less",
    ) -> None:
        """Raises ExpressionError."""
        if len(text) > MAX_EXPRESSION:
            raise ExpressionError(f"longer than {MAX_EXPRESSION} characters")
        try:
            self._compiled = environment.compile(text)
        except RuntimeError as error:
            raise ExpressionError(readable(str(error))) from error
        if self._compiled.return_type() != Kind.BOOL:
            raise ExpressionError(f"gives {self._compiled.return_type().name()}, but must give a boolean")
        self._most, self._advice = most, advice
        self.tree = Tree(self._compiled.serialize())
        self.names = self.tree.names()
        self.cost(usual)

    def cost(self, sizes: Mapping[str, Size]) -> int:
        """Steps that it takes at most, with variables of these sizes.

        Raises:
            ExpressionError: more than it may take, or without a bound.
        """
        try:
            cost = self.tree.cost(sizes)
        except TooCostly as error:
            raise ExpressionError(str(error)) from error
        if cost > self._most:
            raise ExpressionError(f"may take {cost:.0e} steps, more than {self._most:.0e}; {self._advice}")
        return cost

    def holds(self, variables: Mapping[str, Any], sizes: Mapping[str, Size] | None = None) -> bool:
        """`sizes` are those of the variables, where they are known already.

        Raises:
            ExpressionError: it has no boolean value for these variables, or they are too large.
        """
        used = [name for name in self.names if name in variables]
        self.cost({name: sizes[name] if sizes else size_of(variables[name]) for name in used})
        try:
            result = self._compiled.eval(data=dict(variables))
            value = result.value()
        except Exception as error:
            raise ExpressionError(readable(str(error))) from error
        if result.type() != Kind.BOOL:
            raise ExpressionError(readable(str(value)))
        return bool(value)


def readable(text: str) -> str:
    """The engine's message in one line."""
    first = re.sub(r"\[[A-Z_]+\]\s*$", "", text.split("\n |", maxsplit=1)[0]).strip()
    first = re.sub(r"^[A-Z_]+: (ERROR: )?", "", first).replace("<input>:", "").replace(" (in container '')", "")
    return " ".join(first.split())[:500]
