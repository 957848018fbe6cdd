"""The types of rows that come as JSON: found out as rows come, and only ever widened, so that columns stay stable.

A column's *kind* is one of::

    null < boolean, string, int < long, int < double  < json

``int`` and ``long`` are 64-bit integers, ``int`` of at most 53 bits, which a double holds exactly. Two kinds that
have no other above both make ``json``: each value as the text of its JSON. Lists and mappings are ``json`` too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

Kinds = dict[str, str]

#: The key of the kinds in a block's schema text.
_KEY = "columns"

#: Integers beyond are ``long``, or ``json`` beyond 64 bits with a sign.
EXACT = 2**53
LONGEST = 2**63

_WIDER = {frozenset(("int", "long")): "long", frozenset(("int", "double")): "double"}


def join(one: str, other: str) -> str:
    """The kind that holds the values of both."""
    if one == other or other == "null":
        return one
    return other if one == "null" else _WIDER.get(frozenset((one, other)), "json")


def kind_of(value: object) -> str:
    """The kind of a value as JSON has it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            size = abs(value)
            return "int" if size <= EXACT else "long" if -LONGEST <= value < LONGEST else "json"
        case float():
            return "double"
        case str():
            return "string"
    return "json"


def schema_text(kinds: Mapping[str, str]) -> str:
    """The schema of a block of rows whose columns are of these kinds, in this order."""
    return json.dumps({_KEY: kinds})


def kinds_in(schema: str) -> Kinds | None:
    """The kinds in a block's schema text; None if it has none."""
    found: Kinds | None = json.loads(schema).get(_KEY)
    return found


def widen(kinds: Mapping[str, str], more: Iterable[tuple[str, str]]) -> Kinds:
    """`kinds` with these (name, kind) in them."""
    wide = dict(kinds)
    for name, kind in more:
        wide[name] = join(wide[name], kind) if name in wide else kind
    return wide
