"""Whether a schema that was declared contradicts the one that the file itself has."""

import re

from contracts.model import Column, Signature

_ALIASES = {
    "float": "float",
    "double": "float64",
    "half": "float16",
    "integer": "int",
    "long": "int64",
    "short": "int16",
    "byte": "int8",
    "bool_": "bool",
    "boolean": "bool",
    "str": "string",
    "object": "string",
    "text": "string",
    "utf8": "string",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "bf16": "bfloat16",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
}
_VAGUE = {"", "any", "unknown", "undefined", "tensor"}
_NUMBER = re.compile(r"(u?int|b?float|complex)(\d*)")


def contradiction(declared: Signature, found: Signature) -> str | None:
    """What differs, as text, or None. A side that either leaves open contradicts nothing; neither does the order.

    Every input that is declared must exist, and the other way round. Outputs may be declared in part.
    """
    for side in ("inputs", "outputs"):
        ours: tuple[Column, ...] = getattr(declared, side)
        theirs: tuple[Column, ...] = getattr(found, side)
        if not ours or not theirs:
            continue
        real = {column.name: column for column in theirs}
        names = {column.name for column in ours}
        if extra := sorted(names - set(real)):
            return f"{side}: {extra[0]!r} is declared, the file has {_list(sorted(real))}"
        if side == "inputs" and (missing := sorted(set(real) - names)):
            return f"{side}: the file has {missing[0]!r}, which is not declared"
        for column in ours:
            other = real[column.name]
            if not same_type(column.dtype, other.dtype):
                return f"{side}: {column.name!r} is declared as {column.dtype}, the file has {other.dtype}"
            if not same_shape(column.shape, other.shape):
                return (
                    f"{side}: {column.name!r} is declared as {_shape(column.shape)}, the file has {_shape(other.shape)}"
                )
    return None


def same_type(declared: str, found: str) -> bool:
    """Whether two spellings can mean one type. A word without a width (`float`, `integer`) fits every width."""
    one, two = normal(declared), normal(found)
    if one == two or one in _VAGUE or two in _VAGUE:
        return True
    first, second = _NUMBER.fullmatch(one), _NUMBER.fullmatch(two)
    number = {"number", "numeric"}
    if one in number or two in number:
        return all(match is not None or each in number for match, each in ((first, one), (second, two)))
    if first is None or second is None:
        return False
    return first[1] == second[1] and (not first[2] or not second[2])


def normal(dtype: str) -> str:
    """`tensor(float)`, `FLOAT`, `np.float32`, `torch.float`, `<f4` as one word."""
    word = re.sub(r"\s+", "", dtype).lower()
    # In ONNX's own spelling a plain float has 32 bits.
    if match := re.fullmatch(r"tensor\((\w+)\)", word):
        return {"float": "float32"}.get(match[1], _ALIASES.get(match[1], match[1]))
    word = re.sub(r"^(?:numpy|np|torch|tf|dtype|xs|pandas|pd)[.:]", "", word)
    if match := re.fullmatch(r"[<>=|]([fiuc])(\d{1,2})", word):
        kind = {"f": "float", "i": "int", "u": "uint", "c": "complex"}[match[1]]
        return f"{kind}{int(match[2]) * 8}"
    return _ALIASES.get(word, word)


def same_shape(declared: tuple[int | None, ...], found: tuple[int | None, ...]) -> bool:
    """None, and any negative number, stands for any length. A leading open dimension, the batch, may be left out."""
    one, two = _open(declared), _open(found)
    if not one or not two:
        return True
    if len(one) == len(two) + 1 and one[0] is None and two[0] is not None:
        one = one[1:]
    elif len(two) == len(one) + 1 and two[0] is None and one[0] is not None:
        two = two[1:]
    return len(one) == len(two) and all(a is None or b is None or a == b for a, b in zip(one, two, strict=True))


def _open(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return tuple(None if n is None or n < 0 else n for n in shape)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in _open(shape)) + "]"


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
