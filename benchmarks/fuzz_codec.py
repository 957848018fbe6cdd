"""Mutation fuzz of the codec: damaged frames must read as fastavro reads them, or be rejects, never otherwise.

Blocks of a few frames of random table types are damaged (bits flipped, bytes cut, inserted, moved to the next
frame, frames of an altered type mixed in) and decoded to wire values or to final types. What must come out is
worked out frame by frame with fastavro and Python's own date, time and decimal types. The last line counts
outcomes as JSON; the exit status is 1 if any value was wrong or a thousand blocks took longer than a minute.

    python benchmarks/fuzz_codec.py --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import faulthandler
import io
import json
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import fastavro
import orjson
import pyarrow as pa

from actors.codec.codec import Codec, Decoded
from protocols.kinetica.types import BASE_TYPES, Column, TableType

TYPES_KEPT = 60
FRAMES_KEPT = 24


class Misfit(ValueError):
    """The wire value is not a value of the column's type."""


def _need(condition: Any) -> None:
    if not condition:
        raise Misfit


def _instant(pattern: str) -> Callable[[str], datetime.datetime]:
    expression = re.compile(pattern, re.ASCII)

    def read(text: str) -> datetime.datetime:
        match = expression.fullmatch(text)
        _need(match)
        parts = match.groupdict() if match else {}
        numbers = [int(parts.get(name) or default) for name, default in _PARTS.items()]
        try:
            return datetime.datetime(*numbers, int((parts.get("fraction") or "").ljust(6, "0")))  # type: ignore[arg-type]
        except ValueError as error:
            raise Misfit from error

    return read


_PARTS = {"year": 1970, "month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0}
_DAY = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(\.(?P<fraction>\d{1,6}))?"
_day, _clock, _both = _instant(_DAY), _instant(_CLOCK), _instant(f"{_DAY}[ T]{_CLOCK}")


def _decimal(precision: int, scale: int) -> Callable[[str], decimal.Decimal]:
    context = decimal.Context(prec=80, traps=[decimal.Inexact, decimal.InvalidOperation])

    def read(text: str) -> decimal.Decimal:
        _need(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII))
        try:
            value = context.create_decimal(text).quantize(decimal.Decimal(1).scaleb(-scale), context=context)
        except (decimal.Inexact, decimal.InvalidOperation) as error:
            raise Misfit from error
        _need(abs(value) < decimal.Decimal(10) ** (precision - scale))
        return value if value else value.copy_abs()  # fixed-point numbers have no negative zero

    return read


def _array(element: type) -> Callable[[str], list[Any]]:
    allowed = {element, int, type(None)} if element is float else {element, type(None)}

    def read(text: str) -> list[Any]:
        try:
            items = json.loads(text)
        except ValueError as error:
            raise Misfit from error
        _need(type(items) is list and set(map(type, items)) <= allowed)
        _need(element is not int or all(item is None or -(1 << 31) <= item < 1 << 31 for item in items))
        return [item if item is None else element(item) for item in items]

    return read


def _checked(test: Callable[[Any], Any], result: Callable[[Any], Any] = lambda v: v) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        _need(test(value))
        return result(value)

    return read


def _floats(value: bytes) -> list[float]:
    return list(struct.unpack("<2f", value))


def _is_ulong(text: str) -> bool:
    return bool(re.fullmatch("[0-9]+", text)) and int(text) < 1 << 64


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


_LAST = "2900-12-31 23:59:59.999999"

#: Property -> its wire type, the reference reading, and good wire values.
MEANINGS: dict[str, tuple[str, Callable[[Any], Any], list[Any]]] = {
    "boolean": ("int", _checked(lambda v: v in (0, 1), bool), [0, 1]),
    "int8": ("int", _checked(lambda v: -128 <= v < 128), [-128, 127, 0]),
    "int16": ("int", _checked(lambda v: -32768 <= v < 32768), [-32768, 32767, 5]),
    "timestamp": ("long", lambda v: v, [0, 1700000000123, -1]),
    "char4": ("string", _checked(lambda v: len(v.encode()) <= 4), ["", "éé", "abcd"]),
    "date": ("string", lambda v: _day(v).date(), ["2024-02-29", "0001-01-01", "9999-12-31"]),
    "time": ("string", lambda v: _clock(v).time(), ["23:59:59.999", "00:00:00", "01:02:03.000004"]),
    "datetime": ("string", _both, ["2024-02-29 12:34:56.789", "1000-01-01 00:00:00", _LAST]),
    "decimal": ("string", _decimal(19, 4), ["1.5", "-922337203685477.5808", "0"]),
    "decimal(10,3)": ("string", _decimal(10, 3), ["1.500", "-9999999.999", "12"]),
    "ulong": ("string", _checked(_is_ulong, int), [str(2**64 - 1), "0"]),
    "json": ("string", _checked(_is_json), ['{"a":[1,null]}', "[]", '"x"', " 1\n"]),
    "array(int)": ("string", _array(int), ["[1,2,3]", "[]", "[null,-5]"]),
    "array(boolean)": ("string", _array(bool), ["[true,false]", "[null]"]),
    "array(double)": ("string", _array(float), ["[1.5,-0.0]", "[NaN,null]", "[1e300]"]),
    "vector(2)": ("bytes", _checked(lambda v: len(v) == 8, _floats), [bytes(8)]),
    "uuid": ("string", lambda v: v, ["123e4567-e89b-12d3-a456-426614174000"]),
}

PLAIN: dict[str, Callable[[random.Random], Any]] = {
    "int": lambda r: r.choice([0, -1, 1, 63, 64, 2**31 - 1, -(2**31), r.randint(-(2**31), 2**31 - 1)]),
    "long": lambda r: r.choice([0, -1, 2**63 - 1, -(2**63), 2**62, r.getrandbits(r.randint(1, 63))]),
    "float": lambda r: r.choice([0.0, -0.0, 1.5, float("inf"), float("nan"), r.random()]),
    "double": lambda r: r.choice([0.0, -0.0, 1e300, float("-inf"), float("nan"), r.random()]),
    "string": lambda r: r.choice(["", "a", "héllo ☃ 𝄞", "\0", "x" * 70, "y" * 200]),
    "bytes": lambda r: r.choice([b"", b"\xff", r.randbytes(r.randint(1, 100))]),
}

#: Wire values that are good for some columns and nearly good for others.
NEAR: dict[str, list[Any]] = {
    "int": [2, 7, -1, 128, -129, 32768, -32769],
    "long": [2**63 - 1, -(2**63)],
    "string": [
        *("", " ", "ééx", "abcde", "2023-02-29", "2024-2-29", "2024-02-29 ", "0000-01-01", "20240229"),
        *("24:00:00", "12:00", "12:00:00.1234567", "12:00:00.", "2024-02-29T12:34:56"),
        *("2024-02-29 12:34:56Z", "2024-02-29 12:34", "0000-01-01 00:00:00", "2024-02-29 12:34:60"),
        *("1e3", "1.50001", "+5", ".5", "5.", "1e400", "-0", "99999999999", "NaN", "1_0", " 5", "-"),
        *("0x1F", "-1", "007", "18446744073709551616", "[1,2", "1]", "[1.5]", "[true,1]", '["a"]'),
        *("[2147483648]", "{}", '"a', 'b"', "1],[2", "[1", "2],[3]", "null", "nul", "1,2", "[[1]]"),
    ],
    "bytes": [b"", bytes(7), bytes(9), bytes(16), b"\0\0\xc0\x7f\0\0\x80\xff"],
}


class Case:
    """A table type, sound frames of it and of an altered form, and what frames must decode to."""

    def __init__(self, rng: random.Random) -> None:
        self.columns = [self._column(rng, i) for i in range(rng.randint(1, 5))]
        table = TableType(tuple(self.columns))
        self.schema = fastavro.parse_schema(table.avro)
        self.raw, self.typed = Codec(table, raw=True), Codec(table)
        self.frames = self._frames(rng, self.columns)
        altered = list(self.columns)
        if rng.random() < 0.5 and len(altered) > 1:
            del altered[rng.randrange(len(altered))]
        else:
            altered.insert(rng.randint(0, len(altered)), self._column(rng, 99))
        self.foreign = self._frames(rng, altered)

    @staticmethod
    def _column(rng: random.Random, index: int) -> Column:
        nullable = rng.random() < 0.4
        if rng.random() < 0.4:
            meaning = rng.choice(list(MEANINGS))
            return Column(f"c{index}", MEANINGS[meaning][0], nullable, (meaning,))
        return Column(f"c{index}", rng.choice(BASE_TYPES), nullable)

    @staticmethod
    def _frames(rng: random.Random, columns: list[Column]) -> list[bytes]:
        schema = fastavro.parse_schema(TableType(tuple(columns)).avro)
        frames = []
        for _ in range(FRAMES_KEPT):
            out = io.BytesIO()
            row = {column.name: Case._value(rng, column) for column in columns}
            fastavro.schemaless_writer(out, schema, row)
            frames.append(out.getvalue())
        return frames

    @staticmethod
    def _value(rng: random.Random, column: Column) -> Any:
        if column.nullable and rng.random() < 0.3:
            return None
        if not column.properties:
            return PLAIN[column.base](rng)
        if rng.random() < 0.1:
            return rng.choice(NEAR[column.base])
        return rng.choice(MEANINGS[column.properties[0]][2])

    def wire(self, frame: bytes) -> list[Any] | None:
        """The values fastavro reads from exactly `frame`; None if it is not a row."""
        source = io.BytesIO(frame)
        try:
            record: Any = fastavro.schemaless_reader(source, self.schema, None)
        except Exception:
            return None
        values = list(record.values())
        for column, value in zip(self.columns, values, strict=True):
            if column.base == "int" and value is not None and not -(1 << 31) <= value < 1 << 31:
                return None
        return values if source.tell() == len(frame) else None

    def meaning(self, wire: list[Any] | None) -> list[Any] | None:
        """The final values; None if one does not fit its column."""
        if wire is None:
            return None
        try:
            return [
                MEANINGS[column.properties[0]][1](value) if column.properties and value is not None else value
                for column, value in zip(self.columns, wire, strict=True)
            ]
        except Misfit:
            return None


def mutate(rng: random.Random, frames: list[bytes], case: Case) -> None:
    """Damage one or two places of `frames`, in place."""
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        at = rng.randrange(len(frames))
        frame = bytearray(frames[at])
        place = rng.randrange(len(frame) + 1)
        kind = rng.randrange(8)
        if kind == 0 and place < len(frame):
            frame[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(frame):
            frame[place] = rng.choice([0, 1, 2, 3, 4, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)])
        elif kind == 2:
            del frame[place : place + rng.randint(1, 4)]
        elif kind == 3:
            frame[place:place] = rng.choice(
                [b"\x80" * rng.randint(1, 10), b"\xff" * 9 + b"\x01", rng.randbytes(2)]
            )
        elif kind == 4:
            frame = bytearray(rng.choice(case.foreign))
        elif kind == 5 and at + 1 < len(frames):
            frames[at + 1] = bytes(frame[place:]) + frames[at + 1]
            del frame[place:]
        elif kind == 6:
            frame += rng.choice([b"\0", rng.choice(case.frames), rng.randbytes(rng.randint(1, 30))])
        else:
            frame = bytearray(rng.randbytes(rng.randint(0, 40)))
        frames[at] = bytes(frame)


def outcome(decoded: Decoded, count: int) -> list[list[Any] | None]:
    """Per frame its values, or None for a reject."""
    found: list[list[Any] | None] = [None] * count
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) and column.type.tz else column
        for column in decoded.rows.columns
    ]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    places = range(count) if decoded.positions is None else decoded.positions.tolist()
    for place, row in zip(places, rows, strict=True):
        found[place] = list(row)
    rejected = [reject.position for reject in decoded.rejects]
    if sorted([*places, *rejected]) != list(range(count)) or not all(
        reject.reason for reject in decoded.rejects
    ):
        raise AssertionError(f"rows {list(places)} and rejects {rejected} are not {count} frames")
    return found


def run(seconds: float, seed: int, blocks: int | None = None) -> Counter[str]:
    """Fuzz for so long, or so many blocks; the counts of blocks, frames decoded, rejected and wrong."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter(blocks=0, decoded=0, rejected=0, wrong=0)
    cases = [Case(rng) for _ in range(TYPES_KEPT)]
    until = time.monotonic() + seconds
    while counts["blocks"] < blocks if blocks is not None else time.monotonic() < until:
        if counts["blocks"] % 1000 == 0:
            faulthandler.dump_traceback_later(60, exit=True)
        if counts["blocks"] % 40 == 0:
            cases[rng.randrange(TYPES_KEPT)] = Case(rng)
        case = rng.choice(cases)
        frames = rng.choices(case.frames, k=rng.randint(1, 5))
        mutate(rng, frames, case)
        typed = rng.random() < 0.5
        expected = [case.wire(frame) for frame in frames]
        if typed:
            expected = [case.meaning(values) for values in expected]
        found = outcome((case.typed if typed else case.raw).decode(frames), len(frames))
        counts["blocks"] += 1
        counts["decoded"] += sum(values is not None for values in found)
        counts["rejected"] += found.count(None)
        # As text, NaN equals itself and -0.0 is not 0.0.
        if repr(found) != repr(expected):
            counts["wrong"] += 1
            if counts["wrong"] <= 5:
                print(
                    f"seed {seed}, block {counts['blocks']}: {case.columns}\n  frames {[f.hex() for f in frames]}"
                )
                print(f"  expected {expected}\n  found    {found}")
    faulthandler.cancel_dump_traceback_later()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--blocks", type=int, default=None, help="instead of a time: so many blocks")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, shown in the last line")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    counts = run(options.seconds, seed, options.blocks)
    print(json.dumps({"benchmark": "fuzz_codec", "seed": seed, "seconds": options.seconds, **counts}))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
