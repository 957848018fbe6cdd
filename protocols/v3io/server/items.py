"""Table items: objects with attributes, written and read by PutItem, UpdateItem, GetItem and GetItems."""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import orjson

from protocols.v3io import wire
from protocols.v3io.server.attributes import Typed, Values, check, choose, encode, stored
from protocols.v3io.server.errors import Refused, invalid, no_such_file
from protocols.v3io.server.expressions import parse_condition, parse_update
from protocols.v3io.server.messages import Body, Reply, Work, integer, json_reply, modification_headers, text
from protocols.v3io.server.store import OBJECT, Entry, Names, Store

#: Most items in a page, most bytes of it, and most entries looked at before other requests get their turn.
PAGE_ITEMS = 1000
PAGE_BYTES = 2 * 1024 * 1024
SCAN_ENTRIES = 1000
MAX_SEGMENTS = 1024


def put_item(store: Store, path: Names, body: Body) -> Reply:
    """Replace an item's attributes, or with the mode of updates merge new ones into them."""
    mode = text(body, "UpdateMode")
    if mode not in ("", wire.MERGE):
        raise invalid(f"UpdateMode {mode:.80} is not known: leave it out, or use {wire.MERGE}")
    path, key = _item_path(path, body)
    given = body.get("Item")
    if not isinstance(given, dict):
        raise invalid("Item must be an object of attributes")
    given = check(given | key)
    holds = parse_condition(text(body, "ConditionExpression"))
    entry = store.find(path)
    typed = stored(entry)
    if not holds(Values(store, entry, typed)):
        raise _condition_false()
    return _write(store, store.object(path), typed | given if mode else given, text(body, "UpdateExpression"))


def update_item(store: Store, path: Names, body: Body) -> Reply:
    """Run an update expression on an item, or the alternate one if the condition does not hold."""
    path, key = _item_path(path, body)
    holds = parse_condition(text(body, "ConditionExpression"))
    expression = text(body, "UpdateExpression")
    alternate = text(body, "AlternateUpdateExpression")
    if not expression and not alternate:
        raise invalid("UpdateExpression is missing")
    entry = store.find(path)
    typed = stored(entry)
    if not holds(Values(store, entry, typed)):
        if not alternate:
            raise _condition_false()
        expression = alternate
    return _write(store, store.object(path), typed | check(dict(key)), expression)


def get_item(store: Store, path: Names, body: Body) -> Reply:
    path, _ = _item_path(path, body)
    entry = store.get(path)
    item = choose(store, entry, stored(entry), _names(body))
    return Reply(200, orjson.dumps({"Item": item}), modification_headers(entry.modified))


def get_items(store: Store, path: Names, body: Body) -> Reply | Work:
    """A page of those items of a table that pass a filter."""
    scan = _Scan(body)
    table = store.get((*path, *_split(text(body, "TableName"))))
    if table.kind == OBJECT:
        raise no_such_file()
    return scan.page(store, table=table.id)


class _Scan:
    """A GetItems request. Raises ``Refused`` if it is malformed."""

    def __init__(self, body: Body) -> None:
        self._names = _names(body)
        self._holds = parse_condition(text(body, "FilterExpression"))
        self._limit = min(integer(body, "Limit", PAGE_ITEMS, least=1), PAGE_ITEMS)
        self._segments = integer(body, "TotalSegment", 1, least=1, most=MAX_SEGMENTS)
        self._segment = integer(body, "Segment", 0, least=0, most=self._segments - 1)
        self._shard = text(body, "ShardingKey")
        self._start, self._end = text(body, "SortKeyRangeStart"), text(body, "SortKeyRangeEnd")
        self._after = _name_of_marker(text(body, "Marker"))
        if (self._start or self._end) and not self._shard:
            raise invalid("SortKeyRangeStart and SortKeyRangeEnd need a ShardingKey")
        if self._shard and self._segments > 1:
            raise invalid("ShardingKey and TotalSegment exclude each other")
        # The keys that begin with "shard." and the key "shard" itself; "/" follows "." and is in no name.
        self._before = self._shard + "/" if self._shard else None
        self._items: list[Typed] = []
        self._bytes = 0

    def page(self, store: Store, table: int) -> Reply | Work:
        """Go on after what was read before; an empty page is given only at the end, as clients stop at one."""
        entries = store.children(
            table,
            after=self._after,
            first=self._shard,
            before=self._before,
            kinds=(OBJECT,),
            limit=SCAN_ENTRIES,
        )
        for entry in entries:
            if len(self._items) == self._limit or self._bytes > PAGE_BYTES:
                return self._reply(last=False)
            self._after = entry.name
            if self._includes(entry.name):
                typed = stored(entry)
                if self._holds(Values(store, entry, typed)):
                    self._items.append(choose(store, entry, typed, self._names))
                    self._bytes += len(entry.attributes)
        if len(entries) < SCAN_ENTRIES:
            return self._reply(last=True)
        return self._reply(last=False) if self._items else partial(self.page, table=table)

    def _includes(self, name: str) -> bool:
        if self._shard:
            shard, period, sort = name.partition(".")
            if shard != self._shard:
                return False
            if self._start or self._end:
                return bool(period) and self._start <= sort and (not self._end or sort < self._end)
        return self._segments == 1 or zlib.crc32(name.encode()) % self._segments == self._segment

    def _reply(self, *, last: bool) -> Reply:
        fields: dict[str, Any] = {
            "LastItemIncluded": "TRUE" if last else "FALSE",
            "NumItems": len(self._items),
        }
        if not last:
            fields["NextMarker"] = wire.encode_base64(self._after.encode())
        return json_reply(fields | {"Items": self._items})


def _name_of_marker(marker: str) -> str:
    try:
        return wire.decode_base64(marker).decode()
    except ValueError:
        raise invalid("Marker is not one of this server's") from None


def _names(body: Body) -> list[str]:
    return text(body, "AttributesToGet", "*").split(",")


def _split(path: str) -> Names:
    return tuple(name for name in path.split("/") if name)


def _item_path(path: Names, body: Body) -> tuple[Names, Typed]:
    """The item's path, and the key's attribute if the body names it."""
    path = (*path, *_split(text(body, "TableName")))
    key = body.get("Key")
    if key is None:
        return path, {}
    try:
        [(_, value)] = key.items()
        name = str(wire.decode_value(value))
    except (AttributeError, ValueError):
        raise invalid("Key must look like {attribute: {type: value}}") from None
    if not name or "/" in name:
        raise invalid(f"{name!r:.80} cannot be a key")
    return (*path, name), key


def _write(store: Store, entry: Entry, typed: Typed, expression: str) -> Reply:
    """Store the attributes as an update expression, if there is one, changes them."""
    result = dict(typed)
    changes = parse_update(expression)(Values(store, entry, typed)) if expression else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = wire.encode_value(value)
    return Reply(200, b"", modification_headers(store.set_attributes(entry, encode(result)).modified))


def _condition_false() -> Refused:
    return Refused(400, wire.CONDITION_FALSE, "the condition expression is false")
