"""Rows held until their type is known: none is lost, none comes twice, and none under a type that it is not of."""

from __future__ import annotations

import io

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.callbacks.held import AMBIGUOUS, Altered, Held, Run
from actors.monitor.kinetica import block_schema
from actors.monitor.source import Described
from protocols.kinetica.types import Column, TableType

OLD = TableType((Column("id", "long"), Column("name", "string")))
NEW = TableType((*OLD.columns, Column("n", "int", True)))
RENAMED = TableType((Column("id", "long"), Column("label", "string")))


def described(table_type: TableType, type_id: str) -> Described:
    return Described(type_id, block_schema(table_type.definition, table_type.properties, type_id))


def frame(table_type: TableType, number: int) -> bytes:
    out = io.BytesIO()
    values = {"id": number, "name": f"n{number}", "label": f"n{number}", "n": number}
    fastavro.schemaless_writer(out, table_type.avro, {name: values[name] for name in table_type.names})
    return out.getvalue()


def test_frames_are_handed_out_once_they_are_confirmed() -> None:
    held = Held("t", described(OLD, "1"))
    first, second = [frame(OLD, 1), frame(OLD, 2)], [frame(OLD, 3)]
    held.add(first)
    asked = held.end
    held.add(second)
    assert held.confirmed(asked) == [Run(described(OLD, "1").schema, first)]
    assert held.confirmed(asked) == []
    assert held.size == len(second[0])
    assert held.confirmed(held.end) == [Run(described(OLD, "1").schema, second)]
    assert held.size == 0


def test_frames_around_a_change_are_divided() -> None:
    held = Held("t", described(OLD, "1"))
    held.add([frame(OLD, 1), frame(OLD, 2), frame(NEW, 3)])
    held.add([frame(NEW, 4)])
    out = held.altered([described(NEW, "2")])
    assert out == [
        Run(described(OLD, "1").schema, [frame(OLD, 1), frame(OLD, 2)]),
        Altered("Table t was altered: added n int(nullable)"),
    ]
    assert held.described.type_id == "2"
    assert held.confirmed(held.end) == [Run(described(NEW, "2").schema, [frame(NEW, 3), frame(NEW, 4)])]


def test_what_may_be_of_either_type_is_in_doubt_unless_the_new_topic_proves_it() -> None:
    held = Held("t", described(OLD, "1"))
    held.add([frame(OLD, 1), frame(RENAMED, 2)])
    out = held.altered([described(RENAMED, "2")], back=1)
    assert out == [
        Run(described(OLD, "1").schema, [frame(OLD, 1)], AMBIGUOUS),
        Altered("Table t was altered: added label string; removed name string"),
    ]
    assert held.confirmed(held.end) == [Run(described(RENAMED, "2").schema, [frame(RENAMED, 2)])]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("arc"), st.integers(1, 3)), max_size=12))
def test_each_frame_is_handed_out_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Adds, confirms and real changes of the type, one column more each time, in any order."""
    types = [OLD]
    held = Held("t", described(OLD, "0"))
    asked, number = held.end, 0
    sent: list[bytes] = []
    out: list[Run | Altered] = []
    for what, count in steps:
        if what == "a":
            frames = [frame_of(types[-1], number + i) for i in range(count)]
            number += count
            held.add(frames)
            sent += frames
        elif what == "r":
            out += held.confirmed(asked)
            asked = held.end
        else:
            columns = (*types[-1].columns, Column(f"c{len(types)}", "double"))
            types.append(TableType(columns))
            out += held.altered([described(types[-1], str(len(types)))])
    out += held.confirmed(held.end)
    runs = [run for run in out if isinstance(run, Run)]
    assert [each for run in runs for each in run.frames] == sent
    assert held.size == 0
    assert sum(isinstance(each, Altered) for each in out) == len(types) - 1


def frame_of(table_type: TableType, number: int) -> bytes:
    out = io.BytesIO()
    values = {name: 0.5 for name in table_type.names} | {"id": number, "name": "x"}
    fastavro.schemaless_writer(out, table_type.avro, values)
    return out.getvalue()
