"""Inserting, reading, updating and deleting rows, with the official client."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import gpudb
import pytest

from protocols.kinetica.server import sql

Make = Callable[..., Any]


def message(reply: Any) -> str:
    assert reply["status_info"]["status"] == "ERROR"
    return str(reply["status_info"]["message"])


def rows(table: Any, **options: str) -> list[list[Any]]:
    return [list(row.values()) for row in table.get_records(options=options)]


def insert_json(db: gpudb.GPUdb, table: Any, *records: object, **options: str) -> Any:
    return db.insert_records(
        table.name, [json.dumps(r) for r in records], list_encoding="json", options=options
    )


def test_exact_round_trip(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(
        ["l", "long"], ["x", "double"], ["f", "float"], ["s", "string"], ["b", "bytes", "nullable"]
    )
    sent = [
        [-(2**63), math.inf, -math.inf, "nul\0nul", b"\0\xff\0"],
        [2**63 - 1, -0.0, -0.0, "", b""],
        [0, 5e-324, 1.5, "𝄞" * 1000, None],
    ]
    table.insert_records([*sent, [1, math.nan, math.nan, "nan", None]])
    got = rows(table)
    assert repr(got[:3]) == repr(sent)
    assert math.isnan(got[3][1])
    assert math.isnan(got[3][2])
    by_column = table.get_records_by_column(["x", "s", "b"], print_data=False)
    assert by_column["s"] == [row[3] for row in got]
    assert by_column["b"] == [row[4] for row in got]
    # SQLite knows no NaN; it must not be mistaken for a value.
    assert len(rows(table, expression="x > 0")) == 2
    assert len(rows(table, expression="f < 0")) == 1
    assert len(rows(table, expression="l = -9223372036854775808 or l = 9223372036854775807")) == 2
    table.update_records(["s = 'nan'"], [{"s": "still"}])
    table.alter_table("add_column", "extra", {"column_type": "int", "column_properties": "nullable"})
    assert repr([row[:5] for row in rows(table)[:3]]) == repr(sent)
    assert math.isnan(rows(table)[3][1])


def test_fifty_thousand_rows_in_one_call(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "long", "primary_key"], ["s", "string", "char16"], ["x", "double", "nullable"])
    sent = [[i, f"r{i}", i / 3 if i % 3 else None] for i in range(50_000)]
    table.insert_records(sent)
    assert len(table) == 50_000
    assert rows(table) == sent
    page = db.get_records(table.name, offset=49_990, limit=100)
    assert (page["total_number_of_records"], page["has_more_records"]) == (50_000, False)
    assert len(page["records"] if "records" in page else page["records_binary"]) == 10


def test_filter_sort_and_page(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(
        ["id", "int"], ["g", "string", "nullable"], ["u", "string", "ulong"], ["d", "string", "decimal"]
    )
    ulongs = ["9", "10", "18446744073709551615", "9223372036854775808"]
    table.insert_records([[i, f"g{i % 2}" if i else None, ulongs[i], f"{i * 4}.50"] for i in range(4)])
    assert [r[0] for r in rows(table, sort_by="u")] == [0, 1, 3, 2]
    assert [r[0] for r in rows(table, sort_by="d", sort_order="descending")] == [3, 2, 1, 0]
    assert [r[0] for r in rows(table, order_by="g desc, id")] == [1, 3, 2, 0]
    ids = {
        "id >= 1 and not (id == 2)": [1, 3],
        "g is null or g <> 'g1'": [0, 2],
        "g != 'g0'": [1, 3],
        "u > 10": [2, 3],
        "u = '10'": [1],
        "d = 4.5": [1],
        "d < 8.6 and d > '.5'": [1, 2],
        "id in (1, 2) -- comment": [1, 2],
        "": [0, 1, 2, 3],
    }
    for expression, expected in ids.items():
        assert [row[0] for row in rows(table, expression=expression)] == expected, expression
    page = db.get_records_and_decode(table.name, 1, 2, options={"sort_by": "id", "expression": "id < 9"})
    assert [row["id"] for row in page["records"]] == [1, 2]
    assert (page["total_number_of_records"], page["has_more_records"]) == (4, True)
    assert table.get_records(offset=9) == []
    by_column = table.get_records_by_column(["g", "id"], 0, 2, options={"sort_by": "id"}, print_data=False)
    assert dict(by_column) == {"g": [None, "g1"], "id": [0, 1]}
    as_json = table.get_records_by_column(["id"], encoding="json", print_data=False)
    assert as_json["id"] == [0, 1, 2, 3]
    assert "no column" in message(db.get_records_by_column(table.name, ["nope"]))
    assert "must not be negative" in message(db.get_records(table.name, -1, 1))
    assert "must not be negative" in message(db.get_records(table.name, 0, -2))
    assert "sort_order" in message(db.get_records(table.name, options={"sort_by": "id", "sort_order": "up"}))
    assert "no column" in message(db.get_records(table.name, options={"sort_by": "nope"}))


@pytest.mark.parametrize(
    "expression",
    [
        "id = 1) or (1 = 1",
        "1 THEN 1 END FROM records) --",
        "id = 1; delete from records",
        "(select count(*) from sqlite_master) > 0",
        "(select count(*) from meta) > 0",
        "exists (select * from pragma_table_info('records'))",
        "load_extension('x') is null",
        "(with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) from c) > 0",
        "id = ?",
        "id >",
        "count(*) > 0",
        "id = 1 /* open",
        "length(zeroblob(2000000000)) > 1",
        "\0",
    ],
)
def test_expressions_cannot_leave_their_table(db: gpudb.GPUdb, make_table: Make, expression: str) -> None:
    table = make_table(["id", "int"])
    table.insert_records([[1], [2]])
    assert "cannot evaluate" in message(db.get_records(table.name, options={"expression": expression}))
    assert "cannot evaluate" in message(db.delete_records(table.name, [expression]))
    assert "cannot evaluate" in message(db.update_records(table.name, [expression], [{"id": "3"}]))
    assert rows(table) == [[1], [2]]


def test_an_expression_has_a_deadline(
    db: gpudb.GPUdb, make_table: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "DEADLINE", 0.2)
    table = make_table(["id", "int"])
    table.insert_records([[i] for i in range(10_000)])
    expression = "(select count(*) from rows a, rows b, rows c where a.id + b.id + c.id < records.id) = 0"
    assert "took longer than" in message(db.get_records(table.name, options={"expression": expression}))
    assert len(table.get_records()) == 10_000


def test_primary_keys(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["a", "int", "primary_key"], ["b", "string", "char4", "primary_key"], ["v", "int"])
    table.insert_records([[1, "x", 1], [1, "y", 2]])
    with pytest.raises(gpudb.GPUdbException, match=r"record 1: a record with primary key \(1, x\) exists"):
        table.insert_records([[2, "x", 3], [1, "x", 3]])
    assert len(table) == 2
    records = [{"a": a, "b": "x", "v": 3} for a in (2, 1)]
    reply = insert_json(db, table, *records, ignore_existing_pk="true")
    assert (reply["count_inserted"], reply["count_updated"]) == (1, 0)
    reply = insert_json(
        db, table, *({"a": a, "b": "x", "v": 9} for a in (1, 2, 3, 3)), update_on_existing_pk="true"
    )
    assert (reply["count_inserted"], reply["count_updated"]) == (1, 3)
    assert sorted(rows(table)) == [[1, "x", 9], [1, "y", 2], [2, "x", 9], [3, "x", 9]]
    assert len(table) == 4
    with pytest.raises(gpudb.GPUdbException, match="same primary key"):
        table.update_records(["a = 1"], [{"b": "z"}])
    assert sorted(rows(table))[:2] == [[1, "x", 9], [1, "y", 2]]
    table.update_records(["a = 1 and b = 'x'"], [{"b": "y"}], options={"ignore_existing_pk": "true"})
    assert len(table) == 4
    table.update_records(["a = 1 and b = 'x'"], [{"b": "y"}], options={"update_on_existing_pk": "true"})
    assert sorted(rows(table)) == [[1, "y", 9], [2, "x", 9], [3, "x", 9]]


def test_insert_options(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(
        ["id", "int", "primary_key"], ["c", "string", "char4"], ["n", "int", "int8", "nullable"]
    )
    records = [{"id": i, "c": "a"} for i in (1, 2)]
    assert len(set(insert_json(db, table, *records, return_record_ids="true")["record_ids"])) == 2
    again = insert_json(db, table, *records, return_record_ids="true", ignore_existing_pk="true")
    assert (again["record_ids"], again["count_inserted"]) == ([], 0)
    good, bad = {"id": 3, "c": "ééé", "n": 1}, {"id": 4, "c": "ok", "n": 300}
    assert message(insert_json(db, table, good)) == "record 0: column c: 'ééé' is not a valid char4"
    assert insert_json(db, table, good, truncate_strings="true")["count_inserted"] == 1
    assert rows(table, expression="id = 3")[0][1] == "éé"
    assert insert_json(db, table, {"id": 9, "c": "x"}, dry_run="true")["count_inserted"] == 1
    reply = insert_json(db, table, {"id": 5, "c": "y"}, bad, return_individual_errors="true")
    assert (reply["count_inserted"], reply["info"]["bad_record_indices"]) == (0, "1")
    assert "300 is not a valid int8" in reply["info"]["error_1"]
    assert len(table) == 3
    reply = insert_json(db, table, bad, {"id": 5, "c": "y"}, {"id": 1, "c": "z"}, error_handling="skip")
    assert (reply["count_inserted"], reply["info"]["bad_record_indices"]) == (1, "0,2")
    reply = insert_json(db, table, bad, {"id": 6, "c": "toolong"}, error_handling="permissive")
    assert (reply["count_inserted"], reply["info"]["bad_record_indices"]) == (1, "1")
    assert rows(table, expression="id = 4") == [[4, "ok", None]]
    assert "contradicts" in message(
        insert_json(db, table, bad, error_handling="skip", allow_partial_batch="false")
    )
    assert "transformations" in message(insert_json(db, table, bad, transformations="id + 1"))
    assert 'dry_run is "maybe"' in message(insert_json(db, table, bad, dry_run="maybe"))
    assert insert_json(db, table)["count_inserted"] == 0


def test_partial_columns_and_defaults(db: gpudb.GPUdb) -> None:
    columns = [
        ["id", "int"],
        ["s", "string", "default('pen''ding')"],
        ["n", "int", "default(6 * 7)"],
        ["at", "string", "datetime", "init_with_now"],
        ["ms", "long", "timestamp", "init_with_now"],
        ["u", "string", "uuid", "init_with_uuid"],
        ["x", "double", "nullable"],
    ]
    gpudb.GPUdbTable(columns, "ki_home.partial", db=db)
    table = gpudb.GPUdbTable(
        None, "ki_home.partial", db=db, insert_type=[["x", "double", "nullable"], ["id", "int"]]
    )
    table.insert_records([[0.5, 1], [None, 2]])
    first, second = rows(table)
    assert (first[:3], first[6]) == ([1, "pen'ding", 42], 0.5)
    assert (second[:3], second[6]) == ([2, "pen'ding", 42], None)
    assert first[3][:2] == "20"
    assert first[4] > 1_700_000_000_000
    assert first[5] != second[5]
    name = table.name
    missing = {"request_schema_str": '[["x","double","nullable"]]'}
    assert "id is missing" in message(db.insert_records(name, [b"\x02"], options=missing))
    for text in ('[["nope","int"]]', '[["id","long"]]', "[]", "{", '[["id"]]', '[["id","int"],["id","int"]]'):
        assert "request_schema_str" in message(
            db.insert_records(name, [b"\x02"], options={"request_schema_str": text})
        )
    table.clear()


def test_bad_records_reject_the_whole_batch(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"], ["s", "string", "nullable"])
    good = b"\x02\x00\x02a"
    for bad in (
        b"",
        b"\x02",
        b"\x02\x04\x02a",
        b"\x02\x01",
        b"\x02\x00\x04a",
        b"\x02\x00\x02\xff",
        b"\x02\x02\x00",
        b"\x02\x00\x01",
        b"\xff\xff\xff\xff\x1f\x02",
        b"\x80" * 11 + b"\x02",
        b"\x02\x00\x06\xed\xa0\x80",
        good + good,
        b"\x02\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ):
        assert message(db.insert_records(table.name, [good, bad, good])).startswith("record 1: "), bad
    # Together as long as two records, which a check of the sum would not notice.
    assert message(db.insert_records(table.name, [b"\x02\x00\x04a", b"b\x02\x02"])).startswith("record 0: ")
    for text in (
        "{",
        "[]",
        '{"id": 1.5}',
        '{"id": true, "nope": 1}',
        '{"s": "x"}',
        '{"id": 1e3}',
        '{"id": 2147483648}',
        '{"id": null}',
        '{"id": 1, "s": "\\ud800"}',
        "[" * 100_000,
    ):
        reply = db.insert_records(table.name, [text], list_encoding="json")
        assert message(reply).startswith("record 0: "), text[:50]
    assert "list_encoding" in message(db.insert_records(table.name, [good], list_encoding="xml"))
    assert len(table) == 0


def test_random_mutations_never_corrupt(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "long"], ["s", "string", "nullable"], ["x", "double"], ["n", "int", "nullable"])
    clean = b"\x80\x01\x00\x0ahello" + b"\0" * 8 + b"\x00\x7e"
    source = random.Random(7)
    accepted = 0
    for _ in range(300):
        frames = [bytearray(clean) for _ in range(3)]
        victim = source.choice(frames)
        for _ in range(source.randint(1, 3)):
            victim[source.randrange(len(victim))] = source.randrange(256)
        if source.random() < 0.3:
            del victim[source.randrange(len(victim)) :]
        reply = db.insert_records(table.name, [bytes(frame) for frame in frames])
        accepted += reply["status_info"]["status"] == "OK"
    assert 0 < accepted < 300
    assert len(table) == 3 * accepted
    assert len(rows(table)) == 3 * accepted


def test_update(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(
        ["id", "int"], ["s", "string", "char4", "nullable"], ["x", "double"], ["f", "float"], ["b", "bytes"]
    )
    table.insert_records([[i, "a", i / 2, 0.0, b""] for i in range(4)])
    reply = table.update_records(
        ["id < 2", "id = 3", "id = 99"],
        [{"s": None, "x": "-inf"}, {"f": "1e300", "b": "\x00\xff"}, {"s": "q"}],
    )
    assert (reply["count_updated"], reply["counts_updated"]) == (3, [2, 1, 0])
    assert rows(table) == [
        [0, None, -math.inf, 0.0, b""],
        [1, None, -math.inf, 0.0, b""],
        [2, "a", 1.0, 0.0, b""],
        [3, "a", 1.5, math.inf, b"\x00\xff"],
    ]
    reply = table.update_records(
        ["id = 2"], [{"x": "x + id", "s": "upper(s)"}], options={"use_expressions_in_new_values_maps": "true"}
    )
    assert rows(table, expression="id = 2")[0][:3] == [2, "A", 3.0]
    upsert = {
        "records_to_insert_str": ['{"id": 7, "s": "n", "x": 0, "f": 0, "b": ""}'],
        "record_encoding": "json",
    }
    reply = db.update_records(table.name, ["id = 7"], [{"x": "1"}], **upsert)
    assert (reply["counts_updated"], reply["counts_inserted"]) == ([0], [1])
    reply = db.update_records(table.name, ["id = 7"], [{"x": "1"}], **upsert)
    assert (reply["counts_updated"], reply["counts_inserted"]) == ([1], [0])
    before = rows(table)
    for expressions, values, why in (
        (["id = 1", "id = 2"], [{"x": "5"}, {"x": "five"}], "'five' is not a double"),
        (["id = 1"], [{"s": "toolong"}], "not a valid char4"),
        (["id = 1"], [{"x": None}], "does not fit"),
        (["id = 1"], [{"id": "3000000000"}], "is not a int"),
        (["id = 1"], [{"nope": "1"}], "no column"),
        (["id = 1"], [], "same length"),
        ([" "], [{"x": "1"}], "blank"),
    ):
        assert why in message(db.update_records(table.name, expressions, values))
    assert rows(table) == before


def test_delete(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"])
    table.insert_records([[i] for i in range(10)])
    reply = table.delete_records(["id < 3", "id < 5", "id = 77"])
    assert (reply["count_deleted"], reply["counts_deleted"]) == (5, [3, 2, 0])
    assert "give expressions" in message(db.delete_records(table.name, []))
    assert "give expressions" in message(db.delete_records(table.name, [" "]))
    assert len(table) == 5
    reply = db.delete_records(table.name, [], {"delete_all_records": "true"})
    assert (reply["count_deleted"], len(table)) == (5, 0)


def test_execute_sql(db: gpudb.GPUdb, make_table: Make) -> None:
    reply = db.execute_sql_and_decode("SELECT 1700000000123")
    assert list(reply["records"].values()) == [[1700000000123]]
    table = make_table(["id", "int"], ["s", "string", "char4", "nullable"], ["t", "long", "timestamp"])
    table.insert_records([[i, f"s{i}" if i else None, i] for i in range(5)])
    reply = db.execute_sql_and_decode(f"SELECT * FROM {table.name} WHERE id < 2 ORDER BY id DESC;")
    assert dict(reply["records"]) == {"id": [1, 0], "s": ["s1", None], "t": [1, 0]}
    reply = db.execute_sql_and_decode(
        f'select count(*) as n, sum(id) / 2.0 as h from "ki_home".{table.name[8:]}'
    )
    assert dict(reply["records"]) == {"n": [5], "h": [5.0]}
    reply = db.execute_sql(f"SELECT id FROM {table.name} ORDER BY id", 1, 2, encoding="json")
    assert json.loads(reply["json_encoded_response"])["column_1"] == [1, 2]
    assert (reply["total_number_of_records"], reply["has_more_records"]) == (5, True)
    reply = db.execute_sql_and_decode(
        f"SELECT a.id AS n FROM {table.name} a JOIN {table.name} b ON a.id = b.id + 3 ORDER BY 1", 1, 2**62
    )
    assert dict(reply["records"]) == {"n": [4]}
    for statement, why in (
        (f"SELECT * FROM {table.name} JOIN other USING (id)", "reads one table"),
        (f"DELETE FROM {table.name}", "only SELECT"),
        ("SELECT * FROM nope", "not found"),
        (f"SELECT * FROM {table.name}, sqlite_master", "prohibited"),
        (f"SELECT nope FROM {table.name}", "no such column"),
        (f"SELECT 1 FROM {table.name}; DELETE FROM {table.name}", "cannot evaluate"),
    ):
        assert why in message(db.execute_sql(statement))
    assert len(table) == 5
