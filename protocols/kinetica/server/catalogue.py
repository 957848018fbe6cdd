"""What exists on a table server: schemas, types, tables and table monitors.

Its lock is held for dictionary look-ups only, and never while a table's lock is waited for.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.server.table import Table
from protocols.kinetica.server.values import check_columns
from protocols.kinetica.types import TableType, TypeDefinitionError

#: The schema of tables whose names do not say one.
DEFAULT_SCHEMA = "ki_home"


@dataclass(frozen=True)
class RegisteredType:
    """A type as it was created, with its id."""

    type_id: str
    type: TableType
    label: str


@dataclass
class Monitor:
    """A table monitor: one table, one kind of event, one topic id."""

    topic_id: str
    table: Table
    event: str
    options: dict[str, str] = field(default_factory=dict)
    suspended: bool = False

    @property
    def expression(self) -> str:
        return self.options.get("expression", "")


def type_id_of(table_type: TableType, label: str) -> str:
    """The id of a type: the same for the same definition, properties and label."""
    text = json.dumps([table_type.definition, table_type.properties, label], sort_keys=True)
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16]))


def parse_type(definition: str, properties: Mapping[str, Sequence[str]]) -> TableType:
    """Read a type as a client sends it. Raises :class:`RequestError` if it is not one."""
    try:
        table_type = TableType.parse(definition, properties)
    except TypeDefinitionError as error:
        raise RequestError(str(error)) from error
    unknown = next((name for name in properties if name not in table_type.names), None)
    if unknown is not None:
        raise RequestError(f"properties name a column that the type does not have: {unknown!r}")
    check_columns(table_type)
    return table_type


class Catalogue:
    """Schemas, types, tables and monitors; tables and schemas survive in `data_dir` if one is given.

    The directory is the caller's to lock. Raises ``OSError`` if a file in it is not a table.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._data_dir = data_dir
        self._tables: dict[str, Table] = {}
        self._types: dict[str, RegisteredType] = {}
        self._schemas = {DEFAULT_SCHEMA}
        self._monitors: dict[str, Monitor] = {}
        if data_dir is not None:
            try:
                self._load(data_dir)
            except BaseException:
                self.close()
                raise

    def _load(self, data_dir: Path) -> None:
        if (data_dir / "schemas.json").exists():
            self._schemas |= set(json.loads((data_dir / "schemas.json").read_text()))
        for path in sorted(data_dir.glob("*.sqlite")):
            try:
                table = Table.open(str(path))
            except (sqlite3.DatabaseError, TypeError, ValueError) as error:
                raise OSError(f"{path} is not a table of this server: {error}") from error
            if table is not None:
                self._tables[table.name] = table
                self.register(table.type, table.label)

    def close(self) -> None:
        """Close all tables."""
        for table in self.tables():
            with table.lock:
                table.dropped = True
                table.close()

    # Schemas

    def schemas(self) -> list[str]:
        with self._lock:
            return sorted(self._schemas)

    def create_schema(self, name: str) -> bool:
        """Create a schema; False if it exists."""
        if not name or "." in name:
            raise RequestError(f'"{name}" is not a schema name')
        with self._lock:
            if name in self._schemas:
                return False
            self._schemas.add(name)
            self._save_schemas()
            return True

    def drop_schema(self, name: str, *, cascade: bool) -> None:
        """Drop a schema, and its tables if `cascade`; without, a schema that has tables is refused."""
        tables = [table for table in self.tables() if table.name.partition(".")[0] == name]
        if tables and not cascade:
            raise RequestError(
                f'Schema "{name}" has {len(tables)} tables; drop them or set the option cascade'
            )
        for table in tables:
            self.drop(table.name)
        with self._lock:
            self._schemas.discard(name)
            self._schemas.add(DEFAULT_SCHEMA)
            self._save_schemas()

    def _save_schemas(self) -> None:
        if self._data_dir is not None:
            target = self._data_dir / "schemas.json"
            draft = target.with_suffix(".new")
            draft.write_text(json.dumps(sorted(self._schemas)))
            draft.replace(target)

    # Types

    def register(self, table_type: TableType, label: str) -> RegisteredType:
        """Keep a type so that its id can be used."""
        registered = RegisteredType(type_id_of(table_type, label), table_type, label)
        with self._lock:
            self._types[registered.type_id] = registered
        return registered

    def types(self) -> list[RegisteredType]:
        with self._lock:
            return list(self._types.values())

    def type_of_id(self, type_id: str) -> RegisteredType | None:
        with self._lock:
            return self._types.get(type_id)

    def type_id(self, table: Table) -> str:
        """The id of a table's present type; the type can be looked up by it."""
        return self.register(table.type, table.label).type_id

    # Tables

    def qualified(self, name: str) -> str:
        """The name with its schema. Raises :class:`RequestError` for what is not ``[schema.]table``."""
        schema, dot, table = name.rpartition(".")
        if not table or (dot and not schema) or "." in schema:
            raise RequestError(f'"{name}" is not a table name: give [schema.]table')
        return f"{schema or DEFAULT_SCHEMA}.{table}"

    def tables(self) -> list[Table]:
        with self._lock:
            return sorted(self._tables.values(), key=lambda table: table.name)

    def find(self, name: str) -> Table | None:
        """The table of a name, which may lack its schema."""
        with self._lock:
            return self._tables.get(name) or self._tables.get(f"{DEFAULT_SCHEMA}.{name}")

    @contextmanager
    def table(self, name: str) -> Iterator[Table]:
        """The table of a name, locked for the length of the block; :class:`RequestError` if there is none."""
        table = self.find(name)
        if table is not None:
            with table.lock:
                if not table.dropped:
                    yield table
                    return
        raise RequestError(f'Table "{name}" not found')

    def create_table(self, name: str, registered: RegisteredType) -> bool:
        """Create a table; False if the name is taken."""
        name = self.qualified(name)
        with self._lock:
            if name.partition(".")[0] not in self._schemas:
                raise RequestError(f'Schema "{name.partition(".")[0]}" not found; create it first')
            if name in self._tables:
                return False
            path = ":memory:" if self._data_dir is None else str(self._data_dir / f"{uuid.uuid4()}.sqlite")
            self._tables[name] = Table(path, name, registered.type, registered.label)
            return True

    def rename_table(self, table: Table, name: str) -> None:
        """Rename a table, whose lock is held. Its monitors stay with it."""
        name = self.qualified(name)
        with self._lock:
            if name.partition(".")[0] not in self._schemas:
                raise RequestError(f'Schema "{name.partition(".")[0]}" not found; create it first')
            if name in self._tables:
                raise RequestError(f'Table "{name}" exists already')
            del self._tables[table.name]
            self._tables[name] = table
        table.rename(name)

    def drop(self, name: str) -> bool:
        """Drop a table and its monitors; False if there is none."""
        table = self.find(name)
        if table is None:
            return False
        with table.lock:
            if table.dropped:
                return False
            with self._lock:
                del self._tables[table.name]
                self._monitors = {t: m for t, m in self._monitors.items() if m.table is not table}
            table.drop()
        return True

    # Monitors

    def add_monitor(self, monitor: Monitor) -> None:
        """Keep a monitor of a table whose lock is held. Raises :class:`RequestError` if its id is taken."""
        with self._lock:
            if monitor.topic_id in self._monitors:
                raise RequestError(f'Table monitor "{monitor.topic_id}" exists already')
            self._monitors[monitor.topic_id] = monitor

    def monitor(self, topic_id: str) -> Monitor:
        with self._lock:
            monitor = self._monitors.get(topic_id)
        if monitor is None:
            raise RequestError(f'Table monitor "{topic_id}" not found')
        return monitor

    def remove_monitor(self, topic_id: str) -> None:
        self.monitor(topic_id)
        with self._lock:
            self._monitors.pop(topic_id, None)

    def monitors(self, table: Table | None = None) -> list[Monitor]:
        """All monitors, or those of one table, in the order of their creation."""
        with self._lock:
            return [m for m in self._monitors.values() if table is None or m.table is table]
