"""Frames to columns: reads one column of every frame of a block at once, with numpy.

Each frame keeps its own cursor into the joined bytes; reading a column moves all cursors in a handful of
vector operations. So frames stay apart (none can borrow bytes from its neighbour), nothing loops on bad
input, and the cost is some nanoseconds per value. A frame that is not plainly a row (an unknown union branch,
a varint or text that does not fit, bytes missing or left over) is only *marked*; what it is, if anything, is
for the reference decoder to say (``exact.py``).

Format: Avro 1.11 binary encoding of a flat record, see ``protocols/kinetica/types.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from protocols.kinetica.types import Column

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

#: The Arrow type of each wire type.
WIRE_TYPES: dict[str, Any] = {
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.large_string(),
    "bytes": pa.large_binary(),
}

#: Bytes that one column may move a cursor beyond the end of its frame: a branch and a varint of 10 bytes.
_OVERRUN = 11


def read_columns(columns: Sequence[Column], frames: Sequence[bytes]) -> tuple[list[Any], Bools]:
    """Read `frames`, at least one, as rows of `columns`: an Arrow array per column, and which rows are sound.

    The arrays have the wire types. Every sound row is exactly what its frame encodes; the others hold
    arbitrary values.
    """
    reader = _Reader(frames, len(columns))
    arrays = [reader.column(column) for column in columns]
    return arrays, reader.sound & (reader.at == reader.end)


class _Reader:
    def __init__(self, frames: Sequence[bytes], columns: int) -> None:
        lengths = np.fromiter(map(len, frames), np.int64, len(frames))
        joined = b"".join([*frames, bytes(_OVERRUN * columns + 16)])
        self.buffer = pa.py_buffer(joined)
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(joined, np.uint8)
        self.end: Ints = lengths.cumsum()
        self.at: Ints = self.end - lengths
        self.sound: Bools = np.ones(len(frames), np.bool_)
        self._even = pa.array(np.arange(0, 2 * len(frames), 2))
        self._read: dict[str, Callable[[Bools | None], tuple[Any, ...]]] = {
            "int": self._int,
            "long": self._long,
            "float": self._float,
            "double": self._double,
            "string": self._text,
            "bytes": self._text,
        }

    def column(self, column: Column) -> Any:
        valid = self._branch() if column.nullable else None
        bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
        buffers = self._read[column.base](valid)
        kind = WIRE_TYPES[column.base]
        if column.base != "string" or not len(buffers[1]) or np.frombuffer(buffers[1], np.uint8).max() < 0x80:
            return pa.Array.from_buffers(kind, len(self.at), [bitmap, *buffers])
        binary = pa.Array.from_buffers(pa.large_binary(), len(self.at), [bitmap, *buffers])
        try:
            return binary.cast(kind)  # checks that it is UTF-8
        except pa.ArrowInvalid:
            texts = [_utf8(value) for value in binary.to_pylist()]
            self.sound &= np.fromiter((text is not False for text in texts), np.bool_, len(texts))
            return pa.array([text or "" for text in texts], kind, mask=None if valid is None else ~valid)

    def _peek(self, dtype: str) -> Any:
        """The value of `dtype` at every cursor, whatever its alignment."""
        size = np.dtype(dtype).itemsize
        return np.ndarray((len(self.bytes) - size,), dtype, self.bytes, 0, (1,))[self.at]

    def _branch(self) -> Bools | None:
        """Which rows have a value; None if all have."""
        branch = self.bytes.take(self.at)
        self.at += 1
        if not branch.any():
            return None
        self.sound &= (branch & 0xFD) == 0
        valid: Bools = branch == 0
        return valid

    def _skip(self, size: Any, valid: Bools | None) -> None:
        self.at += size if valid is None else size * valid

    def _double(self, valid: Bools | None) -> tuple[Any, ...]:
        values = self._peek("<f8")
        self._skip(8, valid)
        return (pa.py_buffer(values),)

    def _float(self, valid: Bools | None) -> tuple[Any, ...]:
        values = self._peek("<f4")
        self._skip(4, valid)
        return (pa.py_buffer(values),)

    def _long(self, valid: Bools | None) -> tuple[Any, ...]:
        return (pa.py_buffer(self._varint(valid)),)

    def _int(self, valid: Bools | None) -> tuple[Any, ...]:
        values = self._varint(valid)
        narrow = values.astype(np.int32)
        fits = narrow == values
        if not fits.all():
            self.sound &= fits if valid is None else fits | ~valid
        return (pa.py_buffer(narrow),)

    def _text(self, valid: Bools | None) -> tuple[Any, ...]:
        lengths = self._varint(valid)
        if valid is not None:
            lengths *= valid
        room = np.maximum(self.end - self.at, 0)
        # As unsigned numbers, negative lengths are too long as well.
        fits = lengths.view(np.uint64) <= room.view(np.uint64)
        if not fits.all():
            self.sound &= fits
            lengths *= fits
        # Between the values lie bytes of other columns: an array of both, of which every other is taken.
        bounds = np.empty(2 * len(self.at) + 1, np.int64)
        np.minimum(self.at, self.end, out=bounds[:-1:2])
        np.add(bounds[:-1:2], lengths, out=bounds[1::2])
        bounds[-1] = self.end[-1]
        both = pa.Array.from_buffers(
            pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), self.buffer]
        )
        self.at += lengths
        taken = both.take(self._even)
        return tuple(taken.buffers()[1:])

    def _varint(self, valid: Bools | None) -> Ints:
        """The zigzag varint at every cursor; rows without a value read whatever is there and stay put."""
        first = self.bytes.take(self.at)
        if first.max() < 0x80:
            self._skip(1, valid)
            return _unzigzag(first.astype(np.uint64))
        word: Words = self._peek("<u8")
        stops = ~word & np.uint64(0x8080808080808080)
        # All bits up to the end of the first byte without a continuation bit; all 64 if none of eight is.
        used = stops ^ (stops - np.uint64(1))
        length = np.bitwise_count(used).astype(np.int64)
        length >>= 3
        word &= used
        word &= np.uint64(0x7F7F7F7F7F7F7F7F)
        value = _pack_sevens(word)
        (long,) = np.nonzero(stops == 0)
        if len(long):
            at = self.at[long]
            ninth, tenth = self.bytes[at + 8].astype(np.uint64), self.bytes[at + 9].astype(np.uint64)
            more = ninth >= 0x80
            length[long] = 9 + more
            value[long] |= (ninth & np.uint64(0x7F)) << np.uint64(56) | (tenth * more) << np.uint64(63)
            fits = ~more | (tenth <= 1)
            self.sound[long] &= fits if valid is None else fits | ~valid[long]
        self._skip(length, valid)
        return _unzigzag(value)


def _pack_sevens(word: Words) -> Words:
    """Close the gaps of the continuation bits, in place: eight groups of 7 bits become one number of 56."""
    largest = word.max()
    # Moving the high part h of a pair down by k bits is subtracting h - (h >> k) = (h >> k) * (2**k - 1).
    high = word & np.uint64(0x7F007F007F007F00)
    high >>= np.uint64(1)
    word -= high
    if largest >> np.uint64(16):
        np.bitwise_and(word, np.uint64(0x3FFF00003FFF0000), out=high)
        high >>= np.uint64(2)
        high *= np.uint64(3)
        word -= high
    if largest >> np.uint64(32):
        np.bitwise_and(word, np.uint64(0x0FFFFFFF00000000), out=high)
        high >>= np.uint64(4)
        high *= np.uint64(15)
        word -= high
    return word


def _unzigzag(value: Words) -> Ints:
    """Turn 0, 1, 2, 3, ... into 0, -1, 1, -2, ..., in place."""
    sign = (value & np.uint64(1)).view(np.int64)
    np.negative(sign, out=sign)
    value >>= np.uint64(1)
    signed: Ints = value.view(np.int64)
    signed ^= sign
    return signed


def _utf8(value: bytes | None) -> str | bool | None:
    """The text, or False if the bytes are none."""
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return False
