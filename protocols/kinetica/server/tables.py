"""The endpoints for types, schemas and tables: create, show, has, alter, clear."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from protocols.kinetica.server import options as opt
from protocols.kinetica.server import values
from protocols.kinetica.server.catalogue import Catalogue, RegisteredType, parse_type
from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.server.rows import Row
from protocols.kinetica.server.table import Table
from protocols.kinetica.types import BASE_TYPES, Column, TableType

Request = dict[str, Any]
Response = dict[str, Any]


class Tables:
    """Types, schemas and tables of `catalogue`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    # Types

    def create_type(self, request: Request) -> Response:
        table_type = parse_type(request["type_definition"], request["properties"])
        registered = self._catalogue.register(table_type, request["label"])
        echoed = ("type_definition", "label", "properties")
        return {"type_id": registered.type_id, **{name: request[name] for name in echoed}, "info": {}}

    def has_type(self, request: Request) -> Response:
        exists = self._catalogue.type_of_id(request["type_id"]) is not None
        return {"type_id": request["type_id"], "type_exists": exists, "info": {}}

    def show_types(self, request: Request) -> Response:
        type_id, label = request["type_id"], request["label"]
        found = [
            registered
            for registered in self._catalogue.types()
            if (not type_id or registered.type_id == type_id) and (not label or registered.label == label)
        ]
        if type_id and not found:
            raise RequestError(f'Type "{type_id}" not found')
        return {
            "type_ids": [registered.type_id for registered in found],
            "type_schemas": [registered.type.definition for registered in found],
            "labels": [registered.label for registered in found],
            "properties": [registered.type.properties for registered in found],
            "info": {},
        }

    # Schemas

    def create_schema(self, request: Request) -> Response:
        name = request["schema_name"]
        if not self._catalogue.create_schema(name) and not opt.flag(request["options"], "no_error_if_exists"):
            raise RequestError(f'Schema "{name}" exists already')
        return {"schema_name": name, "info": {}}

    def has_schema(self, request: Request) -> Response:
        name = request["schema_name"]
        return {"schema_name": name, "schema_exists": name in self._catalogue.schemas(), "info": {}}

    def drop_schema(self, request: Request) -> Response:
        name, options = request["schema_name"], request["options"]
        if name in self._catalogue.schemas():
            self._catalogue.drop_schema(name, cascade=opt.flag(options, "cascade"))
        elif not opt.flag(options, "no_error_if_not_exists"):
            raise RequestError(f'Schema "{name}" not found')
        return {"schema_name": name, "info": {}}

    # Tables

    def create_table(self, request: Request) -> Response:
        name, options = request["table_name"], request["options"]
        if opt.flag(options, "is_collection"):
            raise RequestError("collections are not supported; use /create/schema")
        opt.refuse(options, ("create_temp_table",) if opt.flag(options, "create_temp_table") else ())
        registered = self._catalogue.type_of_id(request["type_id"])
        if registered is None:
            raise RequestError(f'Type "{request["type_id"]}" not found; create it first')
        type_id = registered.type_id
        if not self._catalogue.create_table(name, registered):
            if not opt.flag(options, "no_error_if_exists"):
                raise RequestError(f'Table "{name}" exists already')
            with self._catalogue.table(name) as table:
                type_id = self._catalogue.type_id(table)
        return {
            "table_name": name,
            "type_id": type_id,
            "is_collection": False,
            "info": {"qualified_table_name": self._catalogue.qualified(name)},
        }

    def has_table(self, request: Request) -> Response:
        name = request["table_name"]
        return {"table_name": name, "table_exists": self._catalogue.find(name) is not None, "info": {}}

    def show_table(self, request: Request) -> Response:
        name, options = request["table_name"], request["options"]
        children = opt.flag(options, "show_children", True)
        found: list[Table | str]
        if name in ("", "*"):
            found = [*self._catalogue.schemas()]
            found += self._catalogue.tables() if name == "*" and children else []
        elif table := self._catalogue.find(name):
            found = [table]
        elif name in self._catalogue.schemas():
            inside = [table for table in self._catalogue.tables() if table.name.startswith(f"{name}.")]
            found = [*inside] if children else [name]
        elif opt.flag(options, "no_error_if_not_exists"):
            found = []
        else:
            raise RequestError(f'Table "{name}" not found')
        sized = opt.flag(options, "get_sizes") or opt.flag(options, "get_cached_sizes")
        return self._described(name, found, sized=sized)

    def _described(self, name: str, found: list[Table | str], *, sized: bool) -> Response:
        names, descriptions, registered, sizes = [], [], [], []
        nothing = RegisteredType("", TableType(()), "")
        for item in found:
            if isinstance(item, str):
                names.append(item)
                descriptions.append(["SCHEMA"])
                registered.append(nothing)
                sizes.append(0)
                continue
            with item.lock:
                if not item.dropped:
                    names.append(item.name)
                    descriptions.append([])
                    registered.append(RegisteredType(self._catalogue.type_id(item), item.type, item.label))
                    sizes.append(item.size if sized else 0)
        return {
            "table_name": name,
            "table_names": names,
            "table_descriptions": descriptions,
            "type_ids": [each.type_id for each in registered],
            "type_schemas": [each.type.definition if each is not nothing else "" for each in registered],
            "type_labels": [each.label for each in registered],
            "properties": [each.type.properties for each in registered],
            "additional_info": [{"schema_name": each.partition(".")[0]} for each in names],
            "sizes": sizes if sized else [],
            "full_sizes": sizes if sized else [],
            "join_sizes": [0.0] * len(sizes) if sized else [],
            "total_size": sum(sizes) if sized else -1,
            "total_full_size": sum(sizes) if sized else -1,
            "info": {},
        }

    def clear_table(self, request: Request) -> Response:
        name = request["table_name"]
        if not name:
            raise RequestError("clearing all tables at once is not allowed; name one")
        if not self._catalogue.drop(name) and not opt.flag(request["options"], "no_error_if_not_exists"):
            raise RequestError(f'Table "{name}" not found')
        return {"table_name": name, "info": {}}

    def clear_tables(self, request: Request) -> Response:
        names = request["table_names"]
        missing = next((name for name in names if self._catalogue.find(name) is None), None)
        if missing is not None and not opt.flag(request["options"], "no_error_if_not_exists"):
            raise RequestError(f'Table "{missing}" not found')
        return {"tables": {name: str(self._catalogue.drop(name)).lower() for name in names}, "info": {}}

    def alter_table(self, request: Request) -> Response:
        actions: dict[str, Callable[[Table, str, dict[str, str]], None]] = {
            "add_column": self._add_column,
            "delete_column": self._delete_column,
            "change_column": self._change_column,
            "rename_table": lambda table, value, _: self._catalogue.rename_table(table, value),
        }
        action = opt.one_of("action", request["action"], actions)
        with self._catalogue.table(request["table_name"]) as table:
            actions[action](table, request["value"], request["options"])
            registered = self._catalogue.register(table.type, table.label)
        return {
            "table_name": request["table_name"],
            "action": action,
            "value": request["value"],
            "type_id": registered.type_id,
            "type_definition": registered.type.definition,
            "properties": registered.type.properties,
            "label": registered.label,
            "info": {},
        }

    def _rewrite(self, table: Table, columns: tuple[Column, ...], convert: Callable[[Row], Row]) -> None:
        filters = [monitor.expression for monitor in self._catalogue.monitors(table)]
        table.rewrite(TableType(columns), convert, filters)

    def _add_column(self, table: Table, name: str, options: dict[str, str]) -> None:
        opt.refuse(options, ("copy_values_from_column", "add_column_expression"))
        if name in table.type.names:
            raise RequestError(f'Table "{table.name}" has a column "{name}" already')
        column = _column(name, options, options.get("column_type") or "string")
        default = options.get("column_default_value")
        if default is None or column.nullable:
            value = values.fill_value(column) if table.size or column.nullable else None
        else:
            value = values.from_text(column, default)
        if default is not None:
            literal = "'" + default.replace("'", "''") + "'"
            column = replace(column, properties=(*column.properties, f"default({literal})"))
        self._rewrite(table, (*table.type.columns, column), lambda row: {**row, name: value})

    def _delete_column(self, table: Table, name: str, options: dict[str, str]) -> None:
        dropped = table.column(name)
        left = tuple(column for column in table.type.columns if column is not dropped)
        if not left:
            raise RequestError("the only column of a table cannot be deleted")
        if "primary_key" in dropped.properties:
            raise RequestError(f'column "{name}" is part of the primary key and cannot be deleted')
        self._rewrite(table, left, lambda row: row)

    def _change_column(self, table: Table, name: str, options: dict[str, str]) -> None:
        if not opt.flag(options, "validate_change_column", True):
            raise RequestError("validate_change_column=false is not supported by the embedded table server")
        old = table.column(name)
        new_name = options.get("rename_column") or name
        typed = "column_type" in options or "column_properties" in options
        new = (
            _column(new_name, options, options.get("column_type") or old.base)
            if typed
            else replace(old, name=new_name)
        )

        def convert(row: Row) -> Row:
            return {**row, new_name: _recast(new, row[name], changed=new.base != old.base)}

        columns = tuple(new if column is old else column for column in table.type.columns)
        if len({column.name for column in columns}) != len(columns):
            raise RequestError(f'Table "{table.name}" has a column "{new_name}" already')
        self._rewrite(table, columns, convert)


def _recast(column: Column, value: Any, *, changed: bool) -> Any:
    if value is None:
        return values.fill_value(column) if not column.nullable else None
    if not changed:
        return value
    if isinstance(value, float) and column.base in ("int", "long") and value.is_integer():
        value = int(value)
    return values.from_text(column, values.to_text(value))


def _column(name: str, options: dict[str, str], column_type: str) -> Column:
    """The column that ``column_type`` (``int`` or ``int,null``) and ``column_properties`` describe."""
    base, *flags = (part.strip() for part in column_type.split(","))
    opt.one_of("column_type", base, BASE_TYPES)
    # A comma between parentheses belongs to a property, as in decimal(10,3).
    properties = re.split(r",(?![^()]*\))", options.get("column_properties", ""))
    cleaned = tuple(filter(None, map(str.strip, properties)))
    nullable = "null" in flags or "nullable" in cleaned
    if nullable and "nullable" not in cleaned:
        cleaned = (*cleaned, "nullable")
    if not name:
        raise RequestError("value is blank; it must name the column")
    return Column(name, base, nullable, cleaned)
