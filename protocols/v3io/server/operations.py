"""What the operators and functions of expressions do with values; the grammar is in ``expressions.py``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from protocols.v3io import wire
from protocols.v3io.wire import Timestamp, Value

Attributes = Mapping[str, Value]
#: A part of an expression; None: it cannot be told whether a condition holds.
Node = Callable[[Attributes], "Value | None"]


class ExpressionError(ValueError):
    """The expression is malformed, or does not fit the item; one line."""


class Untold(ExpressionError):
    """An expression has no value for this item."""


def truth_of(node: Node, attributes: Attributes) -> bool | None:
    try:
        value = node(attributes)
    except Untold:
        return None
    return bool(value) if isinstance(value, bool | int | float) else None


def known(node: Node, attributes: Attributes) -> Value:
    value = node(attributes)
    if value is None:
        raise Untold("a comparison names an attribute that does not exist")
    return value


def compare(
    test: Callable[[Any, Any], bool], left: Node, right: list[Node], attributes: Attributes
) -> bool | None:
    """Whether the comparison holds with any of `right`; values of different types do not compare."""
    try:
        one = known(left, attributes)
        others = [known(node, attributes) for node in right]
    except Untold:
        return None
    return any(_kind(one) is _kind(other) and test(one, other) for other in others)


def _kind(value: Value) -> type:
    return float if type(value) is int else type(value)


def attribute(attributes: Attributes, name: str) -> Value:
    if name not in attributes:
        raise Untold(f"the item has no attribute {name}")
    return attributes[name]


def _array(attributes: Attributes, name: str) -> list[Any]:
    value = attribute(attributes, name)
    if not isinstance(value, list):
        raise Untold(f"attribute {name} is not an array")
    return value


def elements(attributes: Attributes, name: str, first: Node, last: Node | None) -> Value:
    array = _array(attributes, name)
    start = _index(array, name, known(first, attributes))
    if last is None:
        element: int | float = array[start]
        return element
    stop = _index(array, name, known(last, attributes)) + 1
    if stop <= start:
        raise Untold(f"{name}[{start}..{stop - 1}] holds nothing")
    return array[start:stop]


def with_element(attributes: Attributes, name: str, index: Node, value: Value) -> list[Any]:
    """A copy of an array with another element; the array keeps its type."""
    array = list(_array(attributes, name))
    place = _index(array, name, known(index, attributes))
    element = number(value)
    if isinstance(array[0], float):
        element = float(element)
    elif isinstance(element, float):
        raise Untold(f"{name} is an array of integers, which cannot hold {element}")
    array[place] = element
    return array


def _index(array: list[Any], name: str, index: Value) -> int:
    place = integer(index)
    if not 0 <= place < len(array):
        raise Untold(f"{name} has {len(array)} elements, none at {place}")
    return place


def number(value: Value) -> int | float:
    if not isinstance(value, bool | int | float):
        raise Untold(f"{value!r:.40} is not a number")
    return int(value) if isinstance(value, bool) else value


def integer(value: Value) -> int:
    whole = number(value)
    if isinstance(whole, float):
        raise Untold(f"{whole} is not an integer")
    return whole


def fitting(value: Value) -> Value:
    if isinstance(value, int) and not wire.MIN_INTEGER <= value <= wire.MAX_INTEGER:
        raise Untold("a result does not fit 64 bits")
    return value


def _divide(left: int | float, right: int | float) -> int | float:
    if right == 0:
        raise Untold("division by zero")
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return left / right


def _bitwise(calculate: Callable[[int, int], int]) -> Callable[[Value, Value], int]:
    return lambda left, right: calculate(integer(left), integer(right))


def _shift(calculate: Callable[[int, int], int]) -> Callable[[Value, Value], int]:
    def shift(left: Value, right: Value) -> int:
        bits = integer(right)
        if not 0 <= bits < 64:
            raise Untold(f"a shift by {bits} bits is not within 0 to 63")
        return calculate(integer(left), bits)

    return shift


def _of_strings(test: Callable[[str, str], bool]) -> Callable[..., bool]:
    def call(text: Value, part: Value) -> bool:
        return isinstance(text, str) and isinstance(part, str) and test(text, part)

    return call


def _extreme(choose: Callable[..., Any]) -> Callable[..., Value]:
    def call(*values: Value) -> Value:
        numbers = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if not numbers:
            raise Untold("an empty array has neither a minimum nor a maximum")
        result: int | float = choose(map(number, numbers))
        return result

    return call


def _length(value: Value) -> int:
    if isinstance(value, str | bytes | list):
        return len(value)
    raise Untold(f"{value!r:.40} has no length")


def _init_array(count: Value, kind: Value) -> list[int] | list[float]:
    size = integer(count)
    if not 0 < size <= wire.MAX_ATTRIBUTE_BYTES // 8:
        raise Untold(f"an array cannot have {size} elements")
    if kind not in ("int", "double"):
        raise Untold("the type of an array is 'int' or 'double'")
    return [0] * size if kind == "int" else [0.0] * size


def _blob(text: Value) -> bytes:
    try:
        return wire.decode_base64(text)
    except ValueError as error:
        raise Untold(str(error)) from None


def _integer_literal(text: str) -> int:
    if len(text) > 20 or int(text) > wire.MAX_INTEGER:
        raise ExpressionError(f"the number {text:.40} does not fit 64 bits")
    return int(text)


def _time_literal(text: str) -> Timestamp:
    try:
        value = wire.decode_value({"TS": text})
    except ValueError:
        raise ExpressionError(f"{text:.40} is not seconds:nanoseconds") from None
    assert isinstance(value, Timestamp)
    return value


LITERALS: dict[str, Callable[[str], Value]] = {
    "time": _time_literal,
    "float": float,
    "integer": _integer_literal,
    "string": lambda text: text[1:-1],
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LEVELS: tuple[dict[str, Callable[[Any, Any], Value]], ...] = (
    {"|": _bitwise(operator.or_)},
    {"^": _bitwise(operator.xor)},
    {"&": _bitwise(operator.and_)},
    {"<<": _shift(operator.lshift), ">>": _shift(operator.rshift)},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": _divide},
)
#: Fewest and most arguments of a function, and what it does.
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Value]]] = {
    "starts": (2, 2, _of_strings(str.startswith)),
    "ends": (2, 2, _of_strings(str.endswith)),
    "contains": (2, 2, _of_strings(lambda text, part: part in text)),
    "min": (1, 64, _extreme(min)),
    "max": (1, 64, _extreme(max)),
    "length": (1, 1, _length),
    "init_array": (2, 2, _init_array),
    "blob": (1, 1, _blob),
}
