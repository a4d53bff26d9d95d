"""Reads a pickle as the unpickler would, without doing what it says.

Scanners that look at neighbouring opcodes are fooled by the memo and the stack (picklescan issues 14 and 22, modelscan
issue 85). This one keeps both, so that every import and every call is known for what it is; what it cannot know is
reported, never assumed to be harmless.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from contracts.model import Severity
from registry.inspection.imports import judge

MAX_DEPTH = 20
MAX_FORKS = 1_000
FORK_OPCODES = 100_000


class Broken(Exception):
    """The unpickler would raise here: nothing after this point runs."""


class Unreadable(Exception):
    """The unpickler might go on here where we cannot follow."""


class TooLong(Unreadable):
    """It still reads as a pickle after as much as a guess may take."""


@dataclass(frozen=True)
class Import:
    module: str
    name: str


@dataclass
class Made:
    """The result of calling `of`."""

    of: Import | None
    args: tuple[Any, ...] | None = None
    state: Any = None


@dataclass
class Box:
    items: dict[Any, Any] = field(default_factory=dict)


OPAQUE = object()  # a number, bytes, a list: neither a text nor anything to call
# Of the allow list, what may make a text, or give back what it was given.
_TEXT = {"encode", "object", "scalar", "str"}
STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
INTEGERS = {"INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
BY_CODE = {op.code.encode("latin-1"): op for op in pickletools.opcodes}
LONG_BYTES = {"BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}  # and the width of their length
# Read when they are short. A length that random bytes name may be more than any memory holds.
LONG_VALUES = {"BINUNICODE": 4, "BINUNICODE8": 8, "BINSTRING": 4, "LONG4": 4}
LONGEST_VALUE = 1 << 20
POPS = {op.name: (len(op.stack_before), len(op.stack_after)) for op in pickletools.opcodes}


@dataclass
class Seen:
    """What the pickle asks for: imports in order, and things no honest pickle does."""

    imports: dict[Import, None] = field(default_factory=dict)
    tricks: dict[str, None] = field(default_factory=dict)
    forks: int = 0
    guess: bool = False

    def trick(self, what: str) -> None:
        self.tricks[what] = None


class Machine:
    """One pickle from the current position of `source` to its STOP.

    `array` is called when joblib would read an array right after the current opcode; it must leave `source` behind it.
    """

    def __init__(
        self, source: BinaryIO, seen: Seen, array: "Callable[[Machine, Made], None] | None", depth: int = 0
    ) -> None:
        self.source = source
        self.seen = seen
        self.array = array
        self.depth = depth
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.frame_end = 0
        self.opcodes = 0

    def fork(self) -> "Machine":
        """What goes on here when the file is read by plain pickle, which knows nothing of joblib's arrays."""
        self.seen.forks += 1
        if self.seen.forks > MAX_FORKS:
            raise Unreadable("too many arrays that could be code as well")
        twin = Machine(self.source, self.seen, None, self.depth)
        twin.stack, twin.below, twin.memo = [*self.stack], [[*each] for each in self.below], {**self.memo}
        return twin

    def run(self, most: int | None = None) -> None:
        """Raises Broken or Unreadable; what was seen until then stays in `seen`."""
        read = self.source.read
        while True:
            code = read(1)
            op = BY_CODE.get(code)
            if op is None:
                raise Broken("it ends too early" if not code else f"{code!r} is no opcode")
            self.opcodes += 1
            if most is not None and self.opcodes > most:
                raise TooLong("too long to tell")
            try:
                if op.name in LONG_BYTES or self.is_long(op.name):
                    arg = None
                    self.step_over((LONG_BYTES | LONG_VALUES)[op.name])
                else:
                    arg = op.arg.reader(self.source) if op.arg is not None else None
            except (MemoryError, Broken):
                raise
            except Exception as error:
                # pickletools is stricter than the unpickler in places: this may still load.
                raise Unreadable(f"opcode {op.name}: {error}") from error
            if op.name == "STOP":
                if not self.stack:
                    raise Broken("it ends with nothing")
                return
            try:
                self.step(op.name, arg)
            except (IndexError, KeyError) as error:
                raise Broken(f"opcode {op.name} without what it needs") from error

    def is_long(self, name: str) -> bool:
        """Whether the value that follows is longer than any name or number that matters."""
        width = LONG_VALUES.get(name)
        if width is None:
            return False
        here = self.source.tell()
        size = int.from_bytes(self.source.read(width), "little")
        self.source.seek(here)
        return size > LONGEST_VALUE

    def step_over(self, width: int) -> None:
        """Bytes can be gigabytes, and nothing in them matters here."""
        size = int.from_bytes(self.source.read(width), "little")
        if size:
            here = self.source.tell()
            if size >= 1 << 62 or self.source.seek(here + size - 1) < 0 or not self.source.read(1):
                raise Broken("it ends too early")

    def pop(self) -> Any:
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def step(self, name: str, arg: Any) -> None:  # noqa: PLR0912 - one branch for each kind of opcode
        stack = self.stack
        if name in STRINGS or name in INTEGERS:
            stack.append(arg)
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(arg)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(arg)])
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise IndexError
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self.since_mark()
            self.stack.append(tuple(items))
        elif name in ("EMPTY_DICT", "DICT"):
            items = self.since_mark() if name == "DICT" else []
            self.stack.append(_fill(Box(), items))
        elif name in ("SETITEM", "SETITEMS"):
            items = self.since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _fill(self.stack[-1], items)
        elif name in ("LIST", "FROZENSET"):
            self.since_mark()
            self.stack.append(OPAQUE)
        elif name in ("APPENDS", "ADDITEMS"):
            self.since_mark()
            if not self.stack:
                raise IndexError
        elif name == "POP_MARK":
            self.since_mark()
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self.since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "FRAME":
            self.frame_end = self.source.tell() + arg
        else:
            self.act(name, arg)

    def act(self, name: str, arg: Any) -> None:  # noqa: PLR0912
        """The opcodes that import and call, and the rest."""
        if name in ("GLOBAL", "INST"):
            module, _, attribute = arg.partition(" ")
            found = self.imported(module, attribute)
            if name == "INST":
                self.stack_after_mark(found)
            else:
                self.stack.append(found)
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            self.stack.append(self.imported(module, attribute))
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.seen.trick("takes an import from the process's extension registry")
            self.stack.append(Made(None))
        elif name == "OBJ":
            items = self.since_mark()
            self.stack.append(self.called(items[0], tuple(items[1:])))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX":
                self.pop()
            args = self.pop()
            self.stack.append(self.called(self.pop(), args if isinstance(args, tuple) else None))
        elif name == "BUILD":
            self.build()
        elif name in ("PERSID", "BINPERSID"):  # whatever the loader makes of it
            if name == "BINPERSID":
                self.pop()
            self.stack.append(Made(None))
        else:
            before, after = POPS[name]
            if len(self.stack) < before:
                raise IndexError
            del self.stack[len(self.stack) - before :]
            self.stack += [OPAQUE] * after

    def stack_after_mark(self, found: Import) -> None:
        args = tuple(self.since_mark())
        self.stack.append(self.called(found, args))

    def imported(self, module: Any, name: Any) -> Import:
        for part in (module, name):
            if self.unclear(part):
                self.seen.trick("computes the name of an import while loading")
                raise Unreadable("an import by a name that is not written in the file")
            if not isinstance(part, str):
                raise Broken("an import by something that is no text")
        found = Import(module, name)
        self.seen.imports[found] = None
        return found

    def called(self, function: Any, args: tuple[Any, ...] | None) -> Made:
        if self.unclear(function):
            self.seen.trick("calls something that it made itself")
            return Made(None)
        if not isinstance(function, Import):
            raise Broken("a call of something that cannot be called")
        if function.name == "_reconstructor" and args and isinstance(args[0], Import):
            return Made(args[0])
        return Made(function, args)

    def unclear(self, value: Any) -> bool:
        """Whether it may be a text or a function. In a guess, libraries that nobody knows get the benefit: the same
        words, read by the wrong rules, name their classes where the unpickler would find none."""
        if not isinstance(value, Made):
            return False
        if value.of is None:
            return True
        verdict = judge(value.of.module, value.of.name)
        if verdict is None:
            return value.of.name in _TEXT
        return verdict[0] is Severity.UNSAFE or not self.seen.guess

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Import):
            self.seen.trick(f"changes {target.module}.{target.name} itself")
        if not isinstance(target, Made):
            return
        target.state = state
        if target.of is not None and target.of.name == "NumpyArrayWrapper" and self.array is not None:
            self.array(self, target)
            self.stack[-1] = Made(Import("numpy", "ndarray"))


def _fill(target: Any, items: list[Any]) -> Any:
    if isinstance(target, Box):
        for key, value in zip(items[::2], items[1::2], strict=False):
            if isinstance(key, str):
                target.items[key] = value
    return target
