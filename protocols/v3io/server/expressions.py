"""Condition, filter and update expressions: a recursive-descent parser whose result is a function.

::

    condition   = and {OR and};  and = not {AND not};  not = NOT not | comparison
    comparison  = sum [(== != < <= > >=) sum | IN "(" sum {"," sum} ")"]
    sum         = the binary operators | ^ & << >> + - * /, the later ones binding tighter
    unary       = (- | ~) unary | primary
    primary     = number | seconds:nanoseconds | string | TRUE | FALSE | "(" condition ")"
                | function "(" ... ")" | attribute ["[" sum [".." sum] "]"]
    update      = action {";" [action]};  action = [SET] attribute ["[" sum "]"] "=" condition | REMOVE attribute

Strings stand in single or double quotes, attributes that are named like a keyword in backquotes. What cannot
be told, because an attribute is missing or of another type than the operator wants, makes a condition
neither true nor false (``NOT`` leaves it so), and an update fail.

Source: V3IO's public reference of expressions. Its own choice: a quotient of integers is an integer if it is
whole, otherwise a double.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from protocols.v3io.server.operations import (
    COMPARISONS,
    FUNCTIONS,
    LEVELS,
    LITERALS,
    Attributes,
    ExpressionError,
    Node,
    attribute,
    compare,
    elements,
    fitting,
    integer,
    known,
    number,
    truth_of,
    with_element,
)
from protocols.v3io.wire import Value

#: Limits of an expression: bytes, operators, values in a list, and (this parser's) parentheses within each other.
MAX_BYTES = 8 * 1024
MAX_OPERATORS = 700
MAX_LIST = 1024
MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<time>[0-9]+:[0-9]+)
    |(?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<integer>[0-9]+)
    |(?P<string>'[^']*'|"[^"]*")
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |`(?P<quoted>[A-Za-z_][A-Za-z0-9_]*)`
    |(?P<symbol>\.\.|==|!=|<=|>=|<<|>>|[-+*/&|^~<>=()\[\],;])
    |(?P<end>$))""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "true", "false", "set", "remove"})
_OPERATORS = frozenset({"==", "!=", "<", "<=", ">", ">=", "<<", ">>", *"+-*/&|^~", "and", "or", "not", "in"})


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


class _Action(NamedTuple):
    """An assignment to an attribute, or an element of it; without a value, a removal."""

    target: str
    element: Node | None
    value: Node | None


def parse_condition(text: str) -> Callable[[Attributes], bool]:
    """A function that tells whether an item fulfils a condition; an empty one always holds.

    Raises :class:`ExpressionError`; the function raises nothing.
    """
    if not text.strip():
        return lambda attributes: True
    parser = _Parser(text)
    node = parser.condition()
    parser.expect_end()
    return lambda attributes: truth_of(node, attributes) is True


def parse_update(text: str) -> Callable[[Attributes], dict[str, Value | None]]:
    """A function that gives an item's changed attributes by name, None for those to remove.

    Raises :class:`ExpressionError`, as does the function if a value cannot be told.
    """
    actions = _Parser(text).actions()

    def run(attributes: Attributes) -> dict[str, Value | None]:
        current = dict(attributes)
        changes: dict[str, Value | None] = {}
        for action in actions:
            if action.value is None:
                current.pop(action.target, None)
                changes[action.target] = None
                continue
            value = known(action.value, current)
            if action.element is not None:
                value = with_element(current, action.target, action.element, value)
            current[action.target] = changes[action.target] = value
        return changes

    return run


class _Parser:
    """Reads tokens from left to right; each method consumes what its name says and returns its function."""

    def __init__(self, text: str) -> None:
        if len(text.encode()) > MAX_BYTES:
            raise ExpressionError(f"the expression is longer than {MAX_BYTES} bytes")
        if "\\" in text:
            raise ExpressionError("an expression cannot hold a backslash")
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def condition(self) -> Node:
        return self._junction(("or",), lambda: self._junction(("and",), self._negation))

    def actions(self) -> list[_Action]:
        actions = []
        while not self._at_end():
            actions.append(self._action())
            if not self._take(";"):
                break
        self.expect_end()
        if not actions:
            raise ExpressionError("the update expression is empty")
        return actions

    def expect_end(self) -> None:
        if not self._at_end():
            raise self._unexpected()

    def _action(self) -> _Action:
        if self._take("remove"):
            return _Action(self._target(), None, None)
        self._take("set")
        target = self._target()
        index = None
        if self._take("["):
            index = self._sum()
            self._expect("]")
        self._expect("=")
        return _Action(target, index, self.condition())

    def _target(self) -> str:
        name = self._attribute()
        if name.startswith("__"):
            raise ExpressionError(f"{name} is a system attribute, which cannot be changed")
        return name

    def _junction(self, words: tuple[str], operand: Callable[[], Node]) -> Node:
        """Operands joined by AND or OR; one that cannot be told counts only if the others do not decide."""
        nodes = [operand()]
        while self._take(*words):
            nodes.append(operand())
        if len(nodes) == 1:
            return nodes[0]
        decisive = words == ("or",)

        def run(attributes: Attributes) -> bool | None:
            result: bool | None = not decisive
            for node in nodes:
                truth = truth_of(node, attributes)
                if truth is decisive:
                    return decisive
                if truth is None:
                    result = None
            return result

        return run

    def _negation(self) -> Node:
        if not self._take("not"):
            return self._comparison()
        with self._deeper():
            node = self._negation()

        def run(attributes: Attributes) -> bool | None:
            truth = truth_of(node, attributes)
            return None if truth is None else not truth

        return run

    def _comparison(self) -> Node:
        left = self._sum()
        if self._take("in"):
            choices = self._arguments()
            if len(choices) > MAX_LIST:
                raise ExpressionError(f"a list can hold {MAX_LIST} values, not {len(choices)}")
            return lambda attributes: compare(operator.eq, left, choices, attributes)
        symbol = self._take(*COMPARISONS)
        if symbol is None:
            return left
        test, right = COMPARISONS[symbol], [self._sum()]
        return lambda attributes: compare(test, left, right, attributes)

    def _sum(self, level: int = 0) -> Node:
        if level == len(LEVELS):
            return self._unary()
        first = self._sum(level + 1)
        rest: list[tuple[Callable[[Any, Any], Value], Node]] = []
        while symbol := self._take(*LEVELS[level]):
            rest.append((LEVELS[level][symbol], self._sum(level + 1)))
        if not rest:
            return first

        def run(attributes: Attributes) -> Value:
            result = known(first, attributes)
            for calculate, node in rest:
                result = fitting(calculate(number(result), number(known(node, attributes))))
            return result

        return run

    def _unary(self) -> Node:
        symbol = self._take("-", "~")
        if symbol is None:
            return self._primary()
        with self._deeper():
            node = self._unary()
        if symbol == "-":
            return lambda attributes: fitting(-number(known(node, attributes)))
        return lambda attributes: ~integer(known(node, attributes))

    def _primary(self) -> Node:
        token = self._tokens[self._next]
        if token.kind in LITERALS:
            self._next += 1
            literal = LITERALS[token.kind](token.text)
            return lambda attributes: literal
        if word := self._take("true", "false"):
            truth = word == "true"
            return lambda attributes: truth
        if self._take("("):
            with self._deeper():
                node = self.condition()
            self._expect(")")
            return node
        if token.kind == "name" and self._tokens[self._next + 1].text == "(":
            self._next += 1
            with self._deeper():
                return self._call(token)
        name = self._attribute("a value")
        if not self._take("["):
            return lambda attributes: attribute(attributes, name)
        with self._deeper():
            first = self._sum()
            last = self._sum() if self._take("..") else None
        self._expect("]")
        return lambda attributes: elements(attributes, name, first, last)

    def _call(self, token: _Token) -> Node:
        function = token.text.lower()
        if function in ("exists", "if_not_exists"):
            self._expect("(")
            name = self._attribute()
            if function == "exists":
                self._expect(")")
                return lambda attributes: name in attributes
            self._expect(",")
            default = self.condition()
            self._expect(")")
            return lambda attributes: attributes[name] if name in attributes else default(attributes)
        if function not in FUNCTIONS:
            raise ExpressionError(f"there is no function {token.text} (at {token.place})")
        nodes = self._arguments()
        least, most, call = FUNCTIONS[function]
        if not least <= len(nodes) <= most:
            raise ExpressionError(f"{token.text} does not take {len(nodes)} arguments")
        return lambda attributes: call(*[known(node, attributes) for node in nodes])

    def _arguments(self) -> list[Node]:
        self._expect("(")
        nodes = [self._sum()]
        while self._take(","):
            nodes.append(self._sum())
        self._expect(")")
        return nodes

    def _attribute(self, wanted: str = "an attribute") -> str:
        token = self._tokens[self._next]
        if token.kind != "quoted" and (token.kind != "name" or token.text.lower() in _KEYWORDS):
            raise self._unexpected(wanted)
        self._next += 1
        return token.text

    def _take(self, *texts: str) -> str | None:
        """Consume the next token if it is one of these symbols or keywords."""
        token = self._tokens[self._next]
        text = token.text.lower()
        if token.kind not in ("name", "symbol") or text not in texts:
            return None
        self._next += 1
        return text

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(repr(text))

    def _at_end(self) -> bool:
        return self._tokens[self._next].kind == "end"

    def _unexpected(self, wanted: str = "") -> ExpressionError:
        token = self._tokens[self._next]
        found = "the end" if token.kind == "end" else f"{token.text!r:.80}"
        hint = f"{wanted} is missing before {found}" if wanted else f"{found} is not expected"
        return ExpressionError(f"{hint} (at {token.place})")

    def _deeper(self) -> _Parser:
        if self._depth == MAX_DEPTH:
            raise ExpressionError(f"the expression is nested deeper than {MAX_DEPTH}")
        self._depth += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            raise ExpressionError(f"{rest[:20]!r} is not expected (at {len(text) - len(rest)})")
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        place = match.end()
    if sum(token.text.lower() in _OPERATORS for token in tokens) > MAX_OPERATORS:
        raise ExpressionError(f"the expression has more than {MAX_OPERATORS} operators")
    return tokens
