"""Which callbacks are called with what, in which order, and what becomes of what they raise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.callbacks.callback import Callback
from actors.callbacks.caller import CHUNK, Aborted, Caller, failures, read_count
from actors.callbacks.held import Altered, Run
from actors.codec.exact import FrameError
from actors.monitor.kinetica import block_schema
from protocols.kinetica.types import Column, TableType

Kinds = Callback.Type
TYPE = TableType((Column("id", "int"), Column("d", "string", True, ("date",))))
SCHEMA = block_schema(TYPE.definition, TYPE.properties)
COUNT = block_schema('{"type":"record","name":"type_name","fields":[{"name":"count","type":"long"}]}', {})

ONE, TWO, BAD, MISFIT = b"\x02\x02", b"\x04\x00\x142024-02-29", b"\x02\x00", b"\x06\x00\x02x"

LOG = logging.getLogger("test.callbacks")
LOG.propagate = False
LOG.addHandler(logging.NullHandler())


class Seen(list[Any]):
    """What callbacks were called with, in order."""

    def callback(self, kind: Kinds, error: bool = True, options: Any = None, fail: Any = None) -> Callback:
        def called(value: Any) -> None:
            self.append((kind.name, value.to_pylist() if kind is Kinds.INSERT_BATCH else value))
            if fail is not None and fail(value):
                raise ValueError("no")

        return Callback(kind, called, (lambda text: self.append(("error", text))) if error else None, options)


def caller(
    callbacks: Sequence[Callback], values: str = "official", ended: Callable[[], bool] = lambda: False
) -> Caller:
    return Caller("t", callbacks, values, LOG, ended)


def abort() -> Any:
    return Callback.InsertDecodedOptions(Callback.InsertDecodedOptions.DecodeFailureMode.ABORT)


def test_each_record_is_given_as_received_then_decoded() -> None:
    seen = Seen()
    caller([seen.callback(Kinds.INSERT_DECODED), seen.callback(Kinds.INSERT_RAW)]).handle(
        [Run(SCHEMA, [ONE, TWO])]
    )
    assert seen == [
        ("INSERT_RAW", ONE),
        ("INSERT_DECODED", {"id": 1, "d": None}),
        ("INSERT_RAW", TWO),
        ("INSERT_DECODED", {"id": 2, "d": "2024-02-29"}),
    ]


def test_an_exception_is_reported_and_is_no_decoding_failure() -> None:
    seen = Seen()
    failing = seen.callback(Kinds.INSERT_DECODED, options=abort(), fail=lambda row: row["id"] == 1)
    caller([failing]).handle([Run(SCHEMA, [ONE, TWO, ONE])])
    complaint = ("error", "t: the INSERT_DECODED callback raised ValueError: no")
    row = ("INSERT_DECODED", {"id": 1, "d": None})
    assert seen == [row, complaint, ("INSERT_DECODED", {"id": 2, "d": "2024-02-29"}), row, complaint]


def test_an_error_callback_may_raise_too() -> None:
    def fail(text: str) -> None:
        raise RuntimeError("worse")

    rows: list[Any] = []
    callbacks = [Callback(Kinds.INSERT_DECODED, lambda row: rows.append(row) or 1 / 0, fail)]
    caller(callbacks).handle([Run(SCHEMA, [ONE, TWO])])
    assert len(rows) == 2


@pytest.mark.parametrize("raw", [False, True])
def test_skip_goes_on_behind_what_does_not_decode(raw: bool) -> None:
    seen = Seen()
    callbacks = [seen.callback(Kinds.INSERT_DECODED)] + ([seen.callback(Kinds.INSERT_RAW)] if raw else [])
    caller(callbacks).handle([Run(SCHEMA, [ONE, BAD, TWO, BAD])])
    kinds = [kind for kind, _ in seen if kind != "INSERT_RAW"]
    assert kinds == ["INSERT_DECODED", "error", "INSERT_DECODED", "error"]
    assert [value for kind, value in seen if kind == "INSERT_RAW"] == ([ONE, BAD, TWO, BAD] if raw else [])
    text = next(value for kind, value in seen if kind == "error")
    assert text.startswith("t: a record did not decode: not a row of this table type: it ends too early")
    assert text.endswith("its bytes: b'\\x02\\x00'")


def test_abort_ends_at_the_first_that_does_not_decode() -> None:
    seen = Seen()
    with pytest.raises(Aborted):
        caller([seen.callback(Kinds.INSERT_DECODED, options=abort())]).handle([Run(SCHEMA, [ONE, BAD, TWO])])
    assert [kind for kind, _ in seen] == ["INSERT_DECODED", "error"]
    with pytest.raises(Aborted):
        caller([seen.callback(Kinds.INSERT_BATCH, options=abort())]).handle([Run(SCHEMA, [ONE, BAD, TWO])])
    assert [value for kind, value in seen if kind == "INSERT_BATCH"] == [[{"id": 1, "d": None}]]


def test_the_end_of_batches_is_that_of_single_rows_too() -> None:
    seen = Seen()
    callbacks = [seen.callback(Kinds.INSERT_BATCH, options=abort())]
    callbacks += [seen.callback(kind) for kind in (Kinds.INSERT_DECODED, Kinds.INSERT_RAW)]
    with pytest.raises(Aborted):
        caller(callbacks).handle([Run(SCHEMA, [ONE, TWO, BAD, ONE, BAD])])
    assert [kind for kind, _ in seen if kind != "error"] == [
        "INSERT_BATCH",
        *("INSERT_RAW", "INSERT_DECODED") * 2,
    ]
    assert [value["id"] for kind, value in seen if kind == "INSERT_DECODED"] == [1, 2]


def test_an_exit_in_a_callback_is_a_failure_like_others() -> None:
    seen = Seen()
    callback = Callback(Kinds.INSERT_DECODED, lambda row: sys.exit("enough"), lambda text: seen.append(text))
    caller([callback]).handle([Run(SCHEMA, [ONE, TWO])])
    assert seen == ["t: the INSERT_DECODED callback raised SystemExit: enough"] * 2


def test_a_value_that_its_column_cannot_hold_matters_to_typed_values_only() -> None:
    seen = Seen()
    callbacks = [seen.callback(Kinds.INSERT_DECODED)]
    caller(callbacks).handle([Run(SCHEMA, [MISFIT])])
    assert seen == [("INSERT_DECODED", {"id": 3, "d": "x"})]  # as the official client
    seen.clear()
    caller(callbacks, "python").handle([Run(SCHEMA, [MISFIT])])
    assert [kind for kind, _ in seen] == ["error"]


def test_rows_in_doubt_are_not_decoded() -> None:
    seen = Seen()
    kinds = (Kinds.INSERT_DECODED, Kinds.INSERT_BATCH, Kinds.INSERT_RAW)
    caller([seen.callback(kind) for kind in kinds]).handle(
        [Run(SCHEMA, [ONE], "two types"), Altered("changed")]
    )
    assert [kind for kind, _ in seen] == ["error", "INSERT_RAW", "error"]
    assert seen[0][1].startswith("t: a record did not decode: two types")


def test_batches_are_bounded_and_typed() -> None:
    sizes: list[int] = []
    callbacks = [Callback(Kinds.INSERT_BATCH, lambda batch: sizes.append(batch.num_rows))]
    caller(callbacks).handle([Run(SCHEMA, [TWO] * (CHUNK + 5))])
    assert sizes == [CHUNK, 5]


def test_counts() -> None:
    seen = Seen()
    called = caller([seen.callback(Kinds.UPDATED), seen.callback(Kinds.INSERT_DECODED)])
    called.counted("update", [b"\x06", b"\x02"], COUNT)
    called.counted("delete", [b"\x06"], COUNT)  # nobody asked for these
    called.counted("update", [b""], COUNT)
    assert [value for kind, value in seen if kind == "UPDATED"] == [3, 1]
    assert [kind for kind, _ in seen] == ["UPDATED", "UPDATED", "error"]
    with pytest.raises(FrameError):
        read_count(COUNT, b"")


def test_changes_of_the_table() -> None:
    seen = Seen()
    called = caller([seen.callback(Kinds.TABLE_ALTERED), seen.callback(Kinds.TABLE_DROPPED)])
    called.handle([Altered("Table t was altered")])
    called.dropped("Table t does not exist anymore")
    assert seen == [
        ("TABLE_ALTERED", "Table t was altered"),
        ("TABLE_DROPPED", "Table t does not exist anymore"),
    ]


def test_a_problem_is_told_once_to_each_error_callback() -> None:
    told: list[str] = []
    other: list[str] = []
    callbacks = [
        Callback(Kinds.INSERT_DECODED, print, told.append),
        Callback(Kinds.DELETED, print, told.append),
        Callback(Kinds.UPDATED, print, other.append),
        Callback(Kinds.TABLE_DROPPED, print),
    ]
    caller(callbacks).problem("the connection was lost")
    assert (told, other) == (["the connection was lost"], ["the connection was lost"])


def test_after_a_stop_rows_are_left() -> None:
    rows: list[Any] = []
    called = caller([Callback(Kinds.INSERT_DECODED, rows.append)], ended=lambda: len(rows) > 150)
    called.handle([Run(SCHEMA, [ONE] * 1000)])
    assert len(rows) == 200  # it looks every hundred rows


def test_failures_go_on_behind_each() -> None:
    seen: list[int] = []

    def call(number: int) -> None:
        seen.append(number)
        if number % 2:
            raise ValueError(str(number))

    assert [str(error) for error in failures(call, iter(range(5)))] == ["1", "3"]
    assert seen == [0, 1, 2, 3, 4]
