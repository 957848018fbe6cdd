"""Kinetica's column types: a base Avro type plus properties, and what a whole table's type looks like.

A property (``char16``, ``date``, ``decimal(10,3)``, ``nullable``, ...) says what a value means; it never changes
its wire form. The wire form of a row is the bare Avro record of the columns in order.

Not here: what the values become (``actors/codec``) or which of them a server refuses (``server``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The wire types of a column. Any of them may be wrapped as the union ``[T, "null"]``, null always second.
BASE_TYPES = ("int", "long", "float", "double", "string", "bytes")


class TypeDefinitionError(ValueError):
    """A type definition that is not a flat Avro record of Kinetica's column types."""


@dataclass(frozen=True)
class Column:
    """One column: its name, wire type, whether it may be null, and its properties as the server gave them."""

    name: str
    base: str
    nullable: bool = False
    properties: tuple[str, ...] = ()

    @property
    def avro(self) -> str | list[str]:
        """The Avro type on the wire: ``"long"``, or ``["long", "null"]``."""
        return [self.base, "null"] if self.nullable else self.base


@dataclass(frozen=True)
class TableType:
    """The columns of a table, in wire order."""

    columns: tuple[Column, ...]

    @classmethod
    def parse(cls, definition: str, properties: Mapping[str, Sequence[str]] | None = None) -> TableType:
        """Read a ``type_definition`` (JSON text) and the column properties beside it.

        A column is nullable if its Avro type is a union with null or its properties say ``nullable``: real tables
        send both, and either alone makes the official codec treat it as nullable.
        Raises :class:`TypeDefinitionError` for anything but a non-empty flat record of :data:`BASE_TYPES`.
        """
        properties = properties or {}
        try:
            record = json.loads(definition)
            fields = record["fields"]
            if record["type"] != "record" or not isinstance(fields, list) or not fields:
                raise TypeDefinitionError("a type definition is a record with at least one field")
            columns = tuple(_column(field, tuple(properties.get(field["name"], ()))) for field in fields)
        except TypeDefinitionError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise TypeDefinitionError(f"malformed type definition: {error!r}") from error
        names = [column.name for column in columns]
        if len(set(names)) != len(names):
            raise TypeDefinitionError("column names must differ")
        return cls(columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def avro(self) -> dict[str, Any]:
        """The Avro record schema of one row, as a dict."""
        fields = [{"name": column.name, "type": column.avro} for column in self.columns]
        return {"type": "record", "name": "type_name", "fields": fields}

    @property
    def definition(self) -> str:
        """The canonical ``type_definition`` text."""
        return json.dumps(self.avro, separators=(",", ":"))

    @property
    def properties(self) -> dict[str, list[str]]:
        """Column name -> properties, without the columns that have none."""
        return {column.name: list(column.properties) for column in self.columns if column.properties}


def _column(field: Mapping[str, Any], properties: tuple[str, ...]) -> Column:
    name, avro = field["name"], field["type"]
    if not isinstance(name, str) or not name:
        raise TypeDefinitionError("a column needs a name")
    nullable = "nullable" in properties
    if isinstance(avro, list):
        if len(avro) != 2 or avro[1] != "null":
            raise TypeDefinitionError(f'column {name}: the only union allowed is [T, "null"]')
        avro, nullable = avro[0], True
    if avro not in BASE_TYPES:
        raise TypeDefinitionError(f"column {name}: unknown type {avro!r}; one of {', '.join(BASE_TYPES)}")
    return Column(name, avro, nullable, properties)
