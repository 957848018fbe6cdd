"""V3IO key-values: a table ``PATH/<feed>`` per feed, an item per key, the latest row winning.

The key is the text of the key columns, with a period between them (V3IO shards by what is before the first period).
Attributes have the columns' names and V3IO's types; ``_origin`` and ``_time`` (receipt, in ticks) are added:

=================================  ==================================================================
column                             attribute
=================================  ==================================================================
integers, floats                   number (``N``); NaN and the infinities as ``nan``, ``inf``, ``-inf``
boolean                            ``BOOL``
``timestamp``                      ``TS``
bytes                              ``B``
lists of integers or floats        ``B``, an array of 64-bit integers or doubles, as the official client reads it
all others, lists with null        ``S``: text as in events, nested values as JSON
=================================  ==================================================================

Of null there is no attribute: with ``put`` the item is replaced by what the row has; with ``update`` the attributes of
other writers stay, and that of a null is removed, in a second request. A column's name keeps ``A-Z a-z 0-9 _``, other
characters become ``_``; one that begins with a digit or two underscores gets ``c`` before it, and one that is taken
already ``_`` behind it.

Items are put several at a time, the latest row of a key only, or if V3IO refuses that for good the one before it. A
block that is sent again puts the same items again, in the same order. Counts of updates and deletes, and what happened
to the table itself, have no key: they are items ``<epoch>.<offset>`` of ``PATH/<table>.updates``, ``.deletes`` and
``.changes``. A deleted row's item stays, as the source does not tell which rows were deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from actors.batch import Batch, Rejected
from actors.codec.meaning import TYPE_KEY
from actors.writer.columns import joined, json_values, listed, quoted, text_array
from actors.writer.encode import is_list, plain
from actors.writer.sinks.base import PartlySent, Payload
from actors.writer.sinks.v3io_place import Place
from protocols.v3io import wire
from protocols.v3io.client import item_path
from protocols.v3io.errors import RequestRefused, V3ioError

#: Items per payload.
BATCH = 512

ORIGIN, TIME = "_origin", "_time"

#: Feeds whose rows have no key of the table's.
_KEYLESS = (".updates", ".deletes", ".changes")

#: The two words of an array's header: magic number and version, size and type; see ``protocols/v3io/wire.py``.
_ARRAY_WORD = 11223344 | 1 << 32
_INTEGERS, _DOUBLES = 259 << 32, 261 << 32


@dataclass(frozen=True, slots=True)
class _Item:
    offset: int
    path: str
    body: bytes
    #: The update expression that removes what is null; "" if there is nothing to remove.
    remove: str
    #: The row of the same key before it, which is put if V3IO refuses this one.
    before: _Item | None = None


class V3ioItems:
    """Puts batches as items.

    Args:
        key: the columns that make the key.
        mode: ``put`` replaces items, ``update`` keeps attributes that are not the row's.
    """

    def __init__(
        self,
        place: Place,
        key: Iterable[str],
        *,
        mode: str = "put",
    ) -> None:
        # Many items, over few connections.
        self.timeout = 8 * place.timeout
        self._place = place
        self._key = list(key)
        self._update = mode == "update"

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        count = batch.rows.num_rows
        if not count:
            return
        reasons: dict[int, str] = {}
        keys = self._keys(batch, reasons)
        names = attribute_names(batch.rows.schema.names)
        prefix = f'"{ORIGIN}":{{"S":"{self._place.pipeline}/{batch.id.feed}/{batch.id.epoch}/'
        attributes = [
            joined(prefix, _numbers(batch.offsets), f'"}},"{TIME}":{{"N":"', _numbers(batch.times), '"}')
        ]
        removed = []
        for name, field, values in zip(names, batch.rows.schema, batch.rows.columns, strict=True):
            typed = typed_values(field, values)
            _check_size(name, typed, reasons)
            attributes.append(joined(f'"{name}":', typed))
            if self._update and values.null_count:
                removed.append(
                    pc.if_else(values.is_valid(), pa.scalar(None, pa.large_string()), f"REMOVE {name}")
                )
        head = f'{{"UpdateMode":"{wire.MERGE}","Item":{{' if self._update else '{"Item":{'
        bodies = joined(head, listed(attributes, ","), "}}").cast(pa.large_binary()).to_pylist()
        removals = listed(removed, ";").to_pylist() if removed else [""] * count
        table = f"{self._place.path}/{batch.id.feed}"
        for row, body in enumerate(bodies):
            if len(body) > wire.MAX_ITEM_BYTES:
                reasons.setdefault(
                    row, f"{len(body):,} bytes as JSON, and an item holds {wire.MAX_ITEM_BYTES:,}"
                )
        offsets = batch.offsets.tolist()
        for start in range(0, count, BATCH):
            rows = range(start, min(start + BATCH, count))
            # The same key again replaces what was before it, so only the last is put.
            latest: dict[str, _Item] = {}
            for row in rows:
                if row not in reasons:
                    key = keys[row]
                    latest[key] = _Item(
                        offsets[row], item_path(table, key), bodies[row], removals[row], latest.get(key)
                    )
            rejects = tuple(Rejected(offsets[row], reasons[row], b"") for row in rows if row in reasons)
            yield Payload(list(latest.values()), len(rows) - len(rejects), rejects)

    def _keys(self, batch: Batch, reasons: dict[int, str]) -> list[str]:
        """The key of each row; by row, why it has none."""
        missing = [name for name in self._key if name not in batch.rows.schema.names]
        if missing and batch.id.feed.endswith(_KEYLESS):
            return [f"{batch.id.epoch}.{offset}" for offset in batch.offsets.tolist()]
        if missing:
            reason = f"there is no column {missing[0]} to make the key of"
            reasons.update(dict.fromkeys(range(batch.rows.num_rows), reason))
            return [""] * batch.rows.num_rows
        texts = [text_array(plain(batch.rows[name]).cast(pl.String)) for name in self._key]
        joint = pc.binary_join_element_wise(*texts, pa.scalar(".", pa.large_string()))
        keys: list[str | None] = joint.to_pylist()
        for row, key in enumerate(keys):
            if key is None or not key.strip(".") or "/" in key:
                shown = "null" if key is None else f"{key!r:.80}"
                reasons[row] = f"its key is {shown}; a key is text without slashes, and not only of periods"
        return [key or "" for key in keys]

    def send(self, payload: Payload) -> None:
        if not payload.records:
            return
        items: list[_Item] = payload.body
        results = self._place.client.put_encoded_items(
            self._place.container, [(item.path, item.body) for item in items]
        )
        rejects: list[Rejected] = []
        again: list[_Item] = []
        wish: float | None = None
        text = ""
        for item, refusal in zip(items, results, strict=True):
            error = refusal or self._remove(item)
            if error is None:
                continue
            if error.retryable:
                again.append(item)
                wish, text = error.retry_after or wish, str(error)
            elif isinstance(error, RequestRefused):
                rejects.append(Rejected(item.offset, f"V3IO refuses the item: {error}", b""))
                if refusal and item.before:
                    again.append(item.before)
            else:
                raise error
        if again or rejects:
            rest = Payload(again, len(again), (), [item.offset for item in again])
            raise PartlySent(text or f"{len(rejects)} items are refused", rest, tuple(rejects), wish)

    def _remove(self, item: _Item) -> V3ioError | None:
        """Remove the attributes that are null."""
        if not item.remove:
            return None
        try:
            self._place.client.update_item(self._place.container, item.path, item.remove)
        except V3ioError as error:
            return error
        return None

    def close(self) -> None:
        self._place.client.close()


def attribute_names(columns: Iterable[str]) -> list[str]:
    """The attributes that columns become."""
    names: list[str] = []
    for column in columns:
        name = re.sub("[^A-Za-z0-9_]", "_", column)
        if not name or name[0].isdigit() or name.startswith("__"):
            name = f"c{name}"
        while name in names or name in (ORIGIN, TIME):
            name += "_"
        names.append(name)
    return names


def typed_values(field: Any, values: Any) -> Any:
    """The JSON text of each value as an attribute, ``{"N":"42"}``; null stays null."""
    kind = field.type
    json_text = (field.metadata or {}).get(TYPE_KEY) == b"json"
    if pa.types.is_boolean(kind):
        return joined('{"BOOL":', json_values(field, values), "}")
    if pa.types.is_integer(kind):
        return joined('{"N":"', values.cast(pa.large_string()), '"}')
    if pa.types.is_floating(kind):
        numbers = pl.Series(values.cast(pa.float64())).cast(pl.String).str.to_lowercase()
        return joined('{"N":"', text_array(numbers), '"}')
    if pa.types.is_timestamp(kind) and kind.tz:
        return joined('{"TS":"', _seconds(values.cast(pa.timestamp("ms", kind.tz))), '"}')
    if pa.types.is_large_binary(kind) or pa.types.is_binary(kind):
        return joined('{"B":', json_values(field, values), "}")
    if is_list(kind) and (
        pa.types.is_floating(kind.value_type) or pa.types.is_signed_integer(kind.value_type)
    ):
        arrays = joined('{"B":', quoted(pl.Series(_arrays(values)).bin.encode("base64")), "}")
        return pc.coalesce(arrays, _as_text(json_values(field, values)))
    if is_list(kind):
        return _as_text(json_values(field, values))
    texts = pl.Series(values) if json_text else plain(values)
    return joined('{"S":', quoted(texts if texts.dtype == pl.String else texts.cast(pl.String)), "}")


def _as_text(texts: Any) -> Any:
    """JSON texts as strings."""
    return joined('{"S":', quoted(pl.Series(texts)), "}")


def _numbers(values: Any) -> Any:
    return pa.array(values).cast(pa.large_string())


def _seconds(values: Any) -> Any:
    """Milliseconds as ``<seconds>:<nanoseconds>``, seconds rounded down."""
    millis = values.cast(pa.int64())
    series = pl.Series(millis)
    return joined(
        text_array((series // 1000).cast(pl.String)),
        ":",
        text_array((series % 1000 * 1_000_000).cast(pl.String)),
    )


def _arrays(values: Any) -> Any:
    """V3IO's array of each list of numbers; null where the list is, or one of its elements."""
    whole = pa.types.is_integer(values.type.value_type)
    wide = pa.int64() if whole else pa.float64()
    lists = values.cast(pa.large_list(wide))
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    flat = lists.flatten()
    holes = np.zeros(len(lists), np.bool_)
    if flat.null_count:
        parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        holes[parents[flat.is_null().to_numpy(zero_copy_only=False)]] = True
    ends = np.cumsum(lengths + 2)
    starts = ends - lengths - 2
    words = np.empty(int(ends[-1]) if len(ends) else 0, np.uint64)
    body = np.ones(len(words), np.bool_)
    body[starts] = body[starts + 1] = False
    words[starts] = _ARRAY_WORD
    words[starts + 1] = (lengths * 8 | (_INTEGERS if whole else _DOUBLES)).astype(np.uint64)
    words[body] = flat.fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), ends * 8]))
    arrays = pa.Array.from_buffers(pa.large_binary(), len(lists), [None, offsets, pa.py_buffer(words)])
    known = lists.is_valid().to_numpy(zero_copy_only=False) & ~holes
    return pc.if_else(pa.array(known), arrays, pa.scalar(None, pa.large_binary()))


def _check_size(name: str, typed: Any, reasons: dict[int, str]) -> None:
    """Note the rows whose attribute is larger than V3IO takes: the official client allows one byte less of a text."""
    sizes = pc.binary_length(typed).fill_null(0).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(sizes >= wire.MAX_STRING_BYTES).tolist():
        [(kind, value)] = orjson.loads(typed[row].as_py()).items()
        size = len(value.encode()) * (3 if kind == "B" else 4) // 4
        most = wire.MAX_STRING_BYTES - 1 if kind == "S" else wire.MAX_ATTRIBUTE_BYTES
        if size > most:
            reasons.setdefault(row, f"column {name} has {size:,} bytes, and such an attribute holds {most:,}")
