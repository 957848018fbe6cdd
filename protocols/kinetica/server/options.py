"""Reading the string options of requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.wire import END_OF_SET


def flag(options: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A true/false option."""
    text = options.get(name, "")
    if text == "":
        return default
    return one_of(name, text.lower(), ("true", "false")) == "true"


def one_of(name: str, value: str, allowed: Collection[str]) -> str:
    """`value` if it is allowed, else :class:`RequestError`."""
    if value not in allowed:
        raise RequestError(f'{name} is "{value[:60]}"; it must be one of {", ".join(allowed)}')
    return value


def refuse(options: Mapping[str, str], names: Collection[str]) -> None:
    """Refuse options that would change the outcome and are not implemented here."""
    given = next((name for name in names if options.get(name)), None)
    if given is not None:
        raise RequestError(f"the option {given} is not supported by the embedded table server")


def page(offset: int, limit: int, most: int) -> int:
    """The number of rows to return: `limit`, or everything, but at most `most`."""
    if offset < 0:
        raise RequestError(f"offset is {offset}; it must not be negative")
    if limit < 0 and limit != END_OF_SET:
        raise RequestError(f"limit is {limit}; it must not be negative, except {END_OF_SET} for everything")
    return most if limit == END_OF_SET else min(limit, most)


def order(options: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Columns to sort by, and whether each is descending, from ``sort_by``/``sort_order`` or ``order_by``."""
    if sort_by := options.get("sort_by"):
        direction = one_of(
            "sort_order", options.get("sort_order") or "ascending", ("ascending", "descending")
        )
        return [(sort_by, direction == "descending")]
    keys = []
    for part in filter(None, map(str.strip, options.get("order_by", "").split(","))):
        name, _, direction = part.partition(" ")
        keys.append((name, one_of("order_by", direction.strip().lower() or "asc", ("asc", "desc")) == "desc"))
    return keys
