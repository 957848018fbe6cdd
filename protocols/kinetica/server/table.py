"""One table: its type and its rows, in an SQLite database of its own.

A row is kept twice: as the Avro bytes it came in, which is what reading it back and monitors give, so every
value round-trips exactly; and as one SQL column per table column, which is what expressions see. All methods
need :attr:`Table.lock` to be held.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.kinetica.server import values
from protocols.kinetica.server.errors import RecordError, RequestError
from protocols.kinetica.server.intake import Batch
from protocols.kinetica.server.rows import Row, RowCodec, codec_of
from protocols.kinetica.server.sql import (
    NUMBER_COLLATION,
    RECORDS,
    ROWS,
    connect,
    quote,
    restricted,
    select,
    where,
)
from protocols.kinetica.types import Column, TableType

#: Rows that a rewrite of the whole table handles at a time.
REWRITE_ROWS = 10_000

_SQL_TYPES = {"int": "INTEGER", "long": "INTEGER", "float": "REAL", "double": "REAL", "bytes": "BLOB"}

# Names that no client column can have, see check_columns.
_ID, _AVRO = '"@id"', '"@avro"'

#: What happens to a row whose primary key exists: the SQL conflict policy of the option.
ABORT, IGNORE, REPLACE = "ABORT", "IGNORE", "REPLACE"


@dataclass(frozen=True)
class Insertion:
    """What an insert did: `ids[i]` belongs to record `i` of the batch; rows from id `first` on are new."""

    ids: Sequence[int]
    first: int
    inserted: int
    updated: int
    collided: Sequence[int] = ()


class Table:
    """A table in the database at `path`; ``":memory:"`` lives as long as the object."""

    def __init__(self, path: str, name: str, table_type: TableType, label: str) -> None:
        """Create the table. `name` is qualified; :meth:`open` opens one that exists."""
        values.check_columns(table_type)
        self._setup(path)
        self.name, self.label = name, label
        try:
            with self._transaction():
                self._db.execute("CREATE TABLE meta (name, definition, properties, label)")
                self._db.execute("INSERT INTO meta VALUES ('', '', '', '')")
                self._create_records(table_type)
                self._save_meta()
        except BaseException:
            self.drop()
            raise

    @classmethod
    def open(cls, path: str) -> Table | None:
        """Open a table that an earlier process left, or delete it and return None if its creation was cut short.

        Raises ``sqlite3.DatabaseError`` if the file is not a table.
        """
        table = cls.__new__(cls)
        table._setup(path)
        if not table._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            table.drop()
            return None
        row = table._db.execute("SELECT name, definition, properties, label FROM meta").fetchone()
        table.name, definition, properties, table.label = row
        table._set_type(TableType.parse(definition, json.loads(properties)))
        table._next_id = table._db.execute(f"SELECT coalesce(max({_ID}), 0) + 1 FROM {RECORDS}").fetchone()[0]
        return table

    def _setup(self, path: str) -> None:
        self.lock = threading.RLock()
        self.dropped = False
        self.path = path
        self._next_id = 1
        self._indexed: set[str] = set()
        self._size: int | None = None
        self._db = connect(path)
        if path != ":memory:":
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _set_type(self, table_type: TableType) -> None:
        self.type = table_type
        self.codec: RowCodec = codec_of(table_type)
        self._keys = [column.name for column in table_type.columns if "primary_key" in column.properties]

    def _create_records(self, table_type: TableType) -> None:
        self._set_type(table_type)
        self._indexed = set()
        columns = [f"{_ID} INTEGER PRIMARY KEY", f"{_AVRO} BLOB NOT NULL"]
        for column in table_type.columns:
            collation = f" COLLATE {NUMBER_COLLATION}" if values.compares_as_number(column) else ""
            columns.append(f"{quote(column.name)} {_SQL_TYPES.get(column.base, 'TEXT')}{collation}")
        if self._keys:
            columns.append(f"UNIQUE ({self._names(self._keys)})")
        self._db.execute(f"CREATE TABLE {RECORDS} ({', '.join(columns)})")
        self._db.execute(f"CREATE VIEW {ROWS} AS SELECT {self._names(table_type.names)} FROM {RECORDS}")

    def _save_meta(self) -> None:
        self._db.execute(
            "UPDATE meta SET name = ?, definition = ?, properties = ?, label = ?",
            (self.name, self.type.definition, json.dumps(self.type.properties), self.label),
        )

    @staticmethod
    def _names(names: Sequence[str]) -> str:
        return ", ".join(map(quote, names))

    @contextmanager
    def _transaction(self, *, keep: bool = True) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT" if keep else "ROLLBACK")

    # Reading

    @property
    def size(self) -> int:
        """The number of rows."""
        if self._size is None:
            self._size = int(self._db.execute(f"SELECT count(*) FROM {RECORDS}").fetchone()[0])
        return self._size

    def count(self, expression: str) -> int:
        """The number of rows that satisfy an expression; blank means all."""
        if not expression.strip():
            return self.size
        with restricted(self._db):
            clause = where(self._db, expression)
            return int(self._db.execute(f"SELECT count(*) FROM {RECORDS} {clause}").fetchone()[0])

    def frames(
        self,
        expression: str = "",
        *,
        order: Sequence[tuple[str, bool]] = (),
        limit: int = -1,
        offset: int = 0,
        first_id: int = 0,
    ) -> list[bytes]:
        """The Avro bytes of the rows that satisfy `expression`, in the order of insertion unless `order` is
        given.

        Args:
            order: columns and whether each is descending.
            limit: the most rows; negative means all.
            first_id: leaves out rows inserted before this id.
        """
        for name, _ in order[:1]:
            self._index(name)
        keys = [f"{quote(self.column(name).name)} {'DESC' if down else 'ASC'}" for name, down in order]
        with restricted(self._db):
            clause = where(self._db, expression)
            if first_id:
                clause += f"{' AND' if clause else ' WHERE'} {_ID} >= {first_id}"
            statement = (
                f"SELECT {_AVRO} FROM {RECORDS} {clause} ORDER BY {', '.join([*keys, _ID])} LIMIT ? OFFSET ?"
            )
            return [frame for (frame,) in self._db.execute(statement, (limit, offset))]

    def _index(self, name: str) -> None:
        """Who reads in the order of a column pages by it, and asks again: let that cost no look at every row."""
        if name not in self._indexed:
            column, index = quote(self.column(name).name), quote(f"@{name}")
            self._db.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {RECORDS} ({column})")
            self._indexed.add(name)

    def select(self, statement: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a client's SELECT over the view ``rows``; the headers and at most `limit` rows."""
        return select(self._db, statement, limit)

    def column(self, name: str) -> Column:
        """The column of a name. Raises :class:`RequestError` if there is none."""
        column = next((column for column in self.type.columns if column.name == name), None)
        if column is None:
            raise RequestError(f'Table "{self.name}" has no column "{name}"')
        return column

    # Writing

    def insert(self, batch: Batch, on_conflict: str = ABORT, *, dry_run: bool = False) -> Insertion:
        """Insert all records of a batch or none. Without a primary key `on_conflict` means nothing.

        ABORT raises :class:`RecordError` for a record whose key exists, IGNORE leaves it out, REPLACE
        overwrites the row that is there.
        """
        try:
            with self._transaction(keep=not dry_run):
                outcome = self._store(batch, on_conflict)
        except sqlite3.IntegrityError:
            raise self._first_collision(batch) from None
        if not dry_run:
            self._size = None if self._size is None else self._size + outcome.inserted
        return outcome

    def _store(self, batch: Batch, on_conflict: str) -> Insertion:
        first, count = self._next_id, len(batch.frames)
        ids = range(first, first + count)
        rows = zip(ids, batch.frames, *batch.columns, strict=True)
        self._db.executemany(self._insert_statement(on_conflict), rows)
        self._next_id += count
        if not self._keys or on_conflict == ABORT:
            return Insertion(ids, first, count, 0)
        present = self._ids_from(first)
        collided = [i - first for i in ids if i not in present]
        return Insertion(ids, first, len(present), len(collided) if on_conflict == REPLACE else 0, collided)

    def _insert_statement(self, on_conflict: str) -> str:
        names = self.type.names
        statement = f"INSERT INTO {RECORDS} VALUES (?, ?{', ?' * len(names)})"
        if not self._keys or on_conflict == ABORT:
            return statement
        conflict = f"ON CONFLICT ({self._names(self._keys)}) DO"
        if on_conflict == IGNORE:
            return f"{statement} {conflict} NOTHING"
        sets = ", ".join(f"{name} = excluded.{name}" for name in (_AVRO, *map(quote, names)))
        return f"{statement} {conflict} UPDATE SET {sets}"

    def _ids_from(self, first: int) -> set[int]:
        found = self._db.execute(f"SELECT {_ID} FROM {RECORDS} WHERE {_ID} >= ?", (first,))
        return {row[0] for row in found}

    def _first_collision(self, batch: Batch) -> RecordError:
        outcome = self.insert(batch, IGNORE, dry_run=True)
        index = min(outcome.collided)
        keys = [batch.columns[self.type.names.index(name)][index] for name in self._keys]
        shown = ", ".join(values.to_text(key)[: values.SHOWN] for key in keys)
        return RecordError(batch.positions[index], f"a record with primary key ({shown}) exists already")

    def delete(self, expressions: Sequence[str]) -> list[int]:
        """Delete the rows of each expression in turn; how many each deleted."""
        counts = []
        with self._transaction():
            for expression in expressions:
                with restricted(self._db):
                    clause = where(self._db, expression)
                    found = self._db.execute(f"SELECT {_ID} FROM {RECORDS} {clause}").fetchall()
                self._db.executemany(f"DELETE FROM {RECORDS} WHERE {_ID} = ?", found)
                counts.append(len(found))
        self._size = None
        return counts

    def delete_all(self) -> int:
        """Delete every row; how many there were."""
        count = self.size
        with self._transaction():
            self._db.execute(f"DELETE FROM {RECORDS}")
        self._size = 0
        return count

    def update(
        self,
        changes: Sequence[tuple[str, Mapping[str, str | None]]],
        inserts: Sequence[Batch | None],
        on_conflict: str = ABORT,
        *,
        as_expressions: bool = False,
    ) -> tuple[list[int], list[Insertion | None]]:
        """Apply each (expression, new values as text) in turn, all or none.

        Where an expression matches nothing, the batch at the same place of `inserts` (if any) is inserted.
        Values are evaluated per row if `as_expressions`. Returns rows updated, and the insertion, for each
        expression.
        """
        counts: list[int] = []
        insertions: list[Insertion | None] = []
        self._db.execute("BEGIN")
        try:
            for (expression, new_values), batch in zip(changes, inserts, strict=True):
                count = self._update_one(expression, new_values, on_conflict, as_expressions)
                counts.append(count)
                insertions.append(self._store(batch, on_conflict) if batch and not count else None)
        except BaseException as error:
            self._db.execute("ROLLBACK")
            self._size = None
            if isinstance(error, sqlite3.IntegrityError):
                raise RequestError("the update would give two rows the same primary key") from None
            raise
        self._db.execute("COMMIT")
        self._size = None
        return counts, insertions

    def _update_one(
        self, expression: str, new_values: Mapping[str, str | None], on_conflict: str, as_expressions: bool
    ) -> int:
        changed = [self.column(name) for name in new_values]
        texts = ["NULL" if text is None else text for text in new_values.values()] if as_expressions else []
        with restricted(self._db):
            for text in texts:
                where(self._db, text)  # only for its check that the text is one expression
            clause = where(self._db, expression)
            extra = "".join(f", (\n{text}\n)" for text in texts)
            found = self._db.execute(f"SELECT {_ID}, {_AVRO}{extra} FROM {RECORDS} {clause}").fetchall()
        if not found or not changed:
            return len(found)
        constants = [
            None if text is None else values.from_text(column, text)
            for column, text in zip(changed, [] if as_expressions else new_values.values(), strict=False)
        ]
        rows = self.codec.rows([row[1] for row in found])
        for row, (_, _, *computed) in zip(rows, found, strict=True):
            results = constants or [_convert(c, value) for c, value in zip(changed, computed, strict=True)]
            for column, value in zip(changed, results, strict=True):
                row[column.name] = value
        frames = [self.codec.encode(row) for row in rows]
        columns = self.codec.columns(frames)
        sets = ", ".join(f"{name} = ?" for name in (_AVRO, *map(quote, self.type.names)))
        parameters = zip(frames, *columns, (row[0] for row in found), strict=True)
        before = self._db.total_changes
        self._db.executemany(f"UPDATE OR {on_conflict} {RECORDS} SET {sets} WHERE {_ID} = ?", parameters)
        return len(found) if on_conflict != IGNORE else self._db.total_changes - before

    # Changing the type

    def rewrite(
        self, table_type: TableType, convert: Callable[[Row], Row], expressions: Sequence[str] = ()
    ) -> None:
        """Give the table another type, its rows passing through `convert`.

        Nothing changes if a row does not fit, or one of `expressions` cannot be evaluated over the new
        columns.
        """
        values.check_columns(table_type)
        old_type, old_codec = self.type, self.codec
        try:
            with self._transaction():
                self._db.execute(f"DROP VIEW {ROWS}")
                self._db.execute(f"ALTER TABLE {RECORDS} RENAME TO old")
                self._create_records(table_type)
                statement, last = self._insert_statement(ABORT), 0
                while chunk := self._db.execute(
                    f"SELECT {_ID}, {_AVRO} FROM old WHERE {_ID} > ? ORDER BY {_ID} LIMIT {REWRITE_ROWS}",
                    (last,),
                ).fetchall():
                    rows = old_codec.rows([frame for _, frame in chunk])
                    frames = [self.codec.encode(convert(row)) for row in rows]
                    columns = self.codec.columns(frames)
                    self._db.executemany(statement, zip((r[0] for r in chunk), frames, *columns, strict=True))
                    last = chunk[-1][0]
                self._db.execute("DROP TABLE old")
                with restricted(self._db):
                    for expression in expressions:
                        where(self._db, expression)
                self._save_meta()
        except sqlite3.IntegrityError as error:
            self._set_type(old_type)
            raise RequestError("the change would give two rows the same primary key") from error
        except BaseException:
            self._set_type(old_type)
            raise

    def rename(self, name: str) -> None:
        """Change the table's qualified name."""
        self.name = name
        with self._transaction():
            self._save_meta()

    def close(self) -> None:
        """Close the database; in memory, its rows are gone."""
        self._db.close()

    def drop(self) -> None:
        """Close the database and delete its files."""
        self.dropped = True
        self.close()
        if self.path != ":memory:":
            for suffix in ("", "-wal", "-shm"):
                Path(self.path + suffix).unlink(missing_ok=True)


def _convert(column: Column, value: Any) -> Any:
    return None if value is None else values.from_text(column, values.to_text(value))
