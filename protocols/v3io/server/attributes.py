"""The attributes of an item, those of the system included, as expressions and replies see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from protocols.v3io import wire
from protocols.v3io.server.errors import invalid, is_a_directory
from protocols.v3io.server.store import OBJECT, Entry, Store

#: Attributes by name, each as it travels.
Typed = dict[str, Any]


def stored(entry: Entry | None) -> Typed:
    """The attributes of an item, which may be missing. Raises ``Refused`` for a directory."""
    if entry is None:
        return {}
    if entry.kind != OBJECT:
        raise is_a_directory()
    typed: Typed = orjson.loads(entry.attributes)
    return typed


def check(given: Typed) -> Typed:
    """`given`, if a client may write these attributes. Raises ``Refused``."""
    for name, value in given.items():
        if not wire.is_attribute_name(name):
            raise invalid(f"{name!r:.80} cannot name an attribute: use A-Z a-z 0-9 _, no digit first")
        if name.startswith("__"):
            raise invalid(f"{name:.80} is a system attribute, which cannot be written")
        try:
            wire.decode_value(value)
        except ValueError as error:
            raise invalid(f"attribute {name:.80}: {error}") from None
    return given


def encode(typed: Typed) -> str:
    """The form in which attributes are stored. Raises ``Refused`` if they are too large."""
    for name, value in typed.items():
        [(kind, content)] = value.items()
        size = len(str(content).encode()) * (3 if kind == "B" else 4) // 4
        most = wire.MAX_STRING_BYTES if kind == "S" else wire.MAX_ATTRIBUTE_BYTES
        if size > most:
            raise invalid(f"attribute {name} has {size} bytes; at most {most} are allowed")
    encoded = orjson.dumps(typed)
    if len(encoded) * 3 // 4 > wire.MAX_ITEM_BYTES:
        raise invalid(f"the item is larger than {wire.MAX_ITEM_BYTES} bytes")
    return encoded.decode()


def choose(store: Store, entry: Entry, typed: Typed, names: list[str]) -> Typed:
    """The attributes of these names; ``*`` stands for those of users, ``**`` for all."""
    if names == ["*"]:
        return typed
    values = Values(store, entry, typed)
    chosen: Typed = {}
    for name in names:
        for each in values if name == "**" else typed if name == "*" else [name]:
            if each in values:
                chosen[each] = typed[each] if each in typed else wire.encode_value(values[each])
    return chosen


class Values(Mapping[str, wire.Value]):
    """The decoded attributes of an item, none if there is no item; each is decoded when it is asked for."""

    def __init__(self, store: Store, entry: Entry | None, typed: Typed) -> None:
        self._store, self._entry, self._typed = store, entry, typed

    def __getitem__(self, name: str) -> wire.Value:
        if name in self._typed:
            return wire.decode_value(self._typed[name])
        if self._entry is None:
            raise KeyError(name)
        return _SYSTEM[name](self._store, self._entry)

    def __contains__(self, name: object) -> bool:
        return name in self._typed or (name in _SYSTEM and self._entry is not None)

    def __iter__(self) -> Iterator[str]:
        yield from self._typed
        if self._entry is not None:
            yield from _SYSTEM

    def __len__(self) -> int:
        return sum(1 for _ in self)


_SYSTEM: dict[str, Callable[[Store, Entry], str | int]] = {
    "__name": lambda store, entry: entry.name,
    "__size": lambda store, entry: entry.size,
    "__mode": lambda store, entry: 0o100664,
    "__atime_secs": lambda store, entry: entry.modified // 10**9,
    "__atime_nsecs": lambda store, entry: entry.modified % 10**9,
    "__mtime_secs": lambda store, entry: entry.modified // 10**9,
    "__mtime_nsecs": lambda store, entry: entry.modified % 10**9,
    "__ctime_secs": lambda store, entry: entry.created // 10**9,
    "__ctime_nsecs": lambda store, entry: entry.created % 10**9,
    "__uid": lambda store, entry: 0,
    "__gid": lambda store, entry: 0,
    "__obj_type": lambda store, entry: 0,
    "__collection_id": lambda store, entry: entry.parent,
    "__last_sequence_num": lambda store, entry: store.last_record(entry.id)[0],
}
