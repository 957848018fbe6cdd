"""Connecting, types, schemas and tables, with the official client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gpudb
import pytest

from protocols.kinetica.server import TableServer

Make = Callable[..., Any]


def message(reply: Any) -> str:
    assert reply["status_info"]["status"] == "ERROR"
    return str(reply["status_info"]["message"])


def test_connects_with_and_without_auto_discovery(server: TableServer) -> None:
    assert str(gpudb.GPUdb(host=server.url).server_version) == "7.2.3.18"
    options = gpudb.GPUdb.Options()
    options.disable_auto_discovery = True
    plain = gpudb.GPUdb(host=server.url, options=options)
    assert plain.has_table("nothing")["table_exists"] is False
    assert plain.ping(server.url) == "Kinetica is running!"
    properties = plain.show_system_properties()["property_map"]
    assert properties["conf.set_monitor_port"] == str(server.monitor_port)


def test_json_encoding(server: TableServer) -> None:
    json_db = gpudb.GPUdb(host=server.url, encoding="JSON")
    table = gpudb.GPUdbTable([["id", "int"], ["s", "string", "nullable"]], "ki_home.json_é☃", db=json_db)
    reply = json_db.insert_records(table.name, ['{"id": 1, "s": "é☃ 𝄞"}', '{"id": 2}'], list_encoding="json")
    assert reply["count_inserted"] == 2
    found = json_db.get_records(table.name, encoding="json")
    assert [json.loads(text) for text in found["records_json"]] == [
        {"id": 1, "s": "é☃ 𝄞"},
        {"id": 2, "s": None},
    ]
    assert message(json_db.show_table("nöpe")) == 'Table "nöpe" not found'
    table.clear()


def test_types(db: gpudb.GPUdb) -> None:
    definition = '{"type":"record","name":"type_name","fields":[{"name":"a","type":"int"}]}'
    created = db.create_type(definition, "label-1", {"a": ["int8"]})
    type_id = created["type_id"]
    assert db.has_type(type_id)["type_exists"] is True
    assert db.has_type("none")["type_exists"] is False
    shown = db.show_types(type_id, "")
    assert (shown["labels"], shown["properties"]) == (["label-1"], [{"a": ["int8"]}])
    assert db.show_types("", "label-1")["type_ids"] == [type_id]
    assert "not found" in message(db.show_types("none", ""))


@pytest.mark.parametrize(
    ("fields", "properties", "why"),
    [
        ('[{"name":"a","type":["null","int"]}]', {}, "only union allowed"),
        ('[{"name":"a","type":"boolean"}]', {}, "unknown type"),
        ('[{"name":"a","type":"int"},{"name":"a","type":"int"}]', {}, "must differ"),
        ('[{"name":"a","type":"int"},{"name":"A","type":"int"}]', {}, "upper and lower case"),
        ('[{"name":"@avro","type":"int"}]', {}, "must not begin with @"),
        ("[]", {}, "at least one field"),
        ('[{"name":"a","type":"int"}]', {"b": ["int8"]}, "does not have"),
        ('[{"name":"a","type":"int"}]', {"a": ["char4"]}, "needs the base type string"),
        ('[{"name":"a","type":"bytes"}]', {"a": ["vector(x)"]}, "whole numbers"),
        ('[{"name":"a","type":"string"}]', {"a": ["array(thing)"]}, "array of 'thing'"),
    ],
)
def test_malformed_types(db: gpudb.GPUdb, fields: str, properties: dict[str, list[str]], why: str) -> None:
    definition = f'{{"type":"record","name":"type_name","fields":{fields}}}'
    assert why in message(db.create_type(definition, "", properties))


def test_too_many_columns(db: gpudb.GPUdb) -> None:
    fields = ",".join(f'{{"name":"c{i}","type":"int"}}' for i in range(2000))
    definition = f'{{"type":"record","name":"type_name","fields":[{fields}]}}'
    assert "at most" in message(db.create_type(definition, ""))


def test_table_life_cycle(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int", "primary_key"], ["s", "string", "char8", "nullable"])
    name = table.name
    assert db.has_table(name)["table_exists"] is True
    assert db.has_table(name.removeprefix("ki_home."))["table_exists"] is True
    assert gpudb.GPUdbTable(None, name, db=db).gpudbrecord_type == table.gpudbrecord_type
    with pytest.raises(gpudb.GPUdbException, match="does not match"):
        gpudb.GPUdbTable([["id", "long"]], name, db=db)
    table.insert_records([[1, "a"], [2, None]])
    assert len(table) == 2
    shown = db.show_table(name, {"get_sizes": "true"})
    assert (shown["table_names"], shown["sizes"], shown["total_full_size"]) == ([name], [2], 2)
    assert shown["properties"] == [{"id": ["primary_key"], "s": ["char8", "nullable"]}]
    type_id = shown["type_ids"][0]
    assert "exists already" in message(db.create_table(name, type_id))
    assert db.create_table(name, type_id, {"no_error_if_exists": "true"})["type_id"] == type_id
    table.clear()
    assert db.has_table(name)["table_exists"] is False
    assert message(db.clear_table(name)) == f'Table "{name}" not found'
    assert db.clear_table(name, "", {"no_error_if_not_exists": "true"})["status_info"]["status"] == "OK"
    assert db.show_table(name, {"no_error_if_not_exists": "true"})["table_names"] == []
    assert "not found" in message(db.create_table("ki_home.other", "no-type"))
    assert "not a table name" in message(db.create_table("a.b.c", type_id))


def test_schemas(db: gpudb.GPUdb) -> None:
    columns = [["id", "int"]]
    with pytest.raises(gpudb.GPUdbException, match='Schema "sales" not found'):
        gpudb.GPUdbTable(columns, "sales.t", db=db)
    db.create_schema("sales")
    assert "exists already" in message(db.create_schema("sales"))
    assert db.create_schema("sales", {"no_error_if_exists": "true"})["status_info"]["status"] == "OK"
    assert db.has_schema("sales")["schema_exists"] is True
    gpudb.GPUdbTable(columns, "sales.t", db=db)
    gpudb.GPUdbTable(columns, "sales.u", db=db)
    assert db.show_table("sales")["table_names"] == ["sales.t", "sales.u"]
    assert db.show_table("sales", {"show_children": "false"})["table_descriptions"] == [["SCHEMA"]]
    assert {"sales", "ki_home"} <= set(db.show_table("")["table_names"])
    assert {"sales.t", "sales.u"} <= set(db.show_table("*")["table_names"])
    assert "has 2 tables" in message(db.drop_schema("sales"))
    assert db.drop_schema("sales", {"cascade": "true"})["status_info"]["status"] == "OK"
    assert db.has_schema("sales")["schema_exists"] is False
    assert db.has_table("sales.t")["table_exists"] is False
    assert "not found" in message(db.drop_schema("sales"))


def rows(table: Any) -> list[list[Any]]:
    return [list(row.values()) for row in table.get_records()]


def test_alter_add_and_delete_column(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int", "primary_key"], ["x", "double"])
    table.insert_records([[1, float("-inf")], [2, -0.0]])
    before = db.show_table(table.name)["type_ids"][0]
    reply = table.alter_table(
        "add_column", "s", {"column_type": "string", "column_properties": "char4,nullable"}
    )
    assert reply["type_id"] != before
    assert reply["type_id"] == db.show_table(table.name)["type_ids"][0]
    assert rows(table) == [[1, float("-inf"), None], [2, 0.0, None]]
    assert str(rows(table)[1][1]) == "-0.0"
    table.alter_table(
        "add_column",
        "d",
        {
            "column_type": "string",
            "column_properties": "decimal(10,3)",
            "column_default_value": "1.5",
        },
    )
    assert [row[3] for row in rows(table)] == ["1.5", "1.5"]
    db.insert_records(table.name, ['{"id": 3, "x": 0.5}'], list_encoding="json")
    assert rows(table)[2] == [3, 0.5, None, "1.5"]
    with pytest.raises(gpudb.GPUdbException, match="is not nullable and has no default"):
        table.alter_table("add_column", "n", {"column_type": "int"})
    with pytest.raises(gpudb.GPUdbException, match="already"):
        table.alter_table("add_column", "x", {"column_type": "int"})
    table.alter_table("delete_column", "x")
    assert rows(table) == [[1, None, "1.5"], [2, None, "1.5"], [3, None, "1.5"]]
    with pytest.raises(gpudb.GPUdbException, match="primary key"):
        table.alter_table("delete_column", "id")
    with pytest.raises(gpudb.GPUdbException, match="no column"):
        table.alter_table("delete_column", "x")


def test_alter_change_column(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["id", "int"], ["n", "int", "nullable"], ["s", "string"])
    table.insert_records([[1, 7, "12"], [2, None, "x"]])
    table.alter_table("change_column", "n", {"rename_column": "m"})
    table.alter_table("change_column", "m", {"column_type": "double", "column_properties": "nullable"})
    assert rows(table) == [[1, 7.0, "12"], [2, None, "x"]]
    with pytest.raises(gpudb.GPUdbException, match="'x' is not a int"):
        table.alter_table("change_column", "s", {"column_type": "int"})
    with pytest.raises(gpudb.GPUdbException, match="not a valid char1"):
        table.alter_table("change_column", "s", {"column_type": "string", "column_properties": "char1"})
    with pytest.raises(gpudb.GPUdbException, match="already"):
        table.alter_table("change_column", "s", {"rename_column": "m"})
    table.delete_records(["id = 2"])
    table.alter_table("change_column", "s", {"column_type": "long", "column_properties": ""})
    assert rows(table) == [[1, 7.0, 12]]
    assert "action is" in message(db.alter_table(table.name, "explode", ""))


def test_alter_rename_table(db: gpudb.GPUdb, make_table: Make) -> None:
    table, other = make_table(["id", "int"]), make_table(["id", "int"])
    table.insert_records([[1]])
    assert "exists already" in message(db.alter_table(table.name, "rename_table", other.name))
    assert "Schema" in message(db.alter_table(table.name, "rename_table", "nowhere.t"))
    db.alter_table(table.name, "rename_table", "ki_home.renamed")
    assert db.has_table(table.name)["table_exists"] is False
    assert db.get_records("ki_home.renamed", encoding="json")["records_json"] == ['{"id": 1}']
    db.clear_tables(["ki_home.renamed"])
    assert db.has_table("ki_home.renamed")["table_exists"] is False


def test_odd_names(db: gpudb.GPUdb, make_table: Make) -> None:
    table = make_table(["select", "int"], ["a b", "int"], ["rowid", "long"], ["ünï", "string"])
    table.insert_records([[1, 2, 3, "é"], [4, 5, 6, "ö"]])
    found = table.get_records(options={"expression": 'rowid = 6 and "a b" > 1', "sort_by": "select"})
    assert [list(row.values()) for row in found] == [[4, 5, 6, "ö"]]
