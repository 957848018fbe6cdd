"""Running SQL text that a client wrote, so that it can only read, and only the rows of one table.

SQLite does the parsing and evaluating. Three things keep an expression in its place: each table is a database
of its own; while client text runs, an authorizer allows nothing but reading :data:`RECORDS` and calling
functions; and a deadline ends what runs too long. A NaN is null to expressions, since SQLite has no NaN.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from protocols.kinetica.server.errors import RequestError

#: The SQL table that holds a table's rows, and a view of it without the server's own columns.
RECORDS = "records"
ROWS = "rows"

#: Collation of numbers that are stored as text.
NUMBER_COLLATION = "NUMBER"

#: Seconds that one statement with client text may run.
DEADLINE = 60.0

#: SQLite virtual machine steps between two looks at the clock.
STEPS_PER_CHECK = 100_000

#: Longest text or blob that an expression may build, in bytes; nothing a client can send is longer.
LONGEST_VALUE = 256 * 1024 * 1024

_READABLE = {RECORDS, ROWS, ""}


def connect(path: str) -> sqlite3.Connection:
    """Open a database with the server's collation and functions; transactions are explicit."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.create_collation(NUMBER_COLLATION, compare_numbers)
    database.create_function("NOW", 0, lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3])
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return database


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def compare_numbers(left: str, right: str) -> int:
    """Order two texts as numbers; what is not a number sorts after all numbers, as text."""
    try:
        a, b = Decimal(left), Decimal(right)
        return (a > b) - (a < b)
    except InvalidOperation:
        a_key, b_key = (not _is_number(left), left), (not _is_number(right), right)
        return (a_key > b_key) - (a_key < b_key)


def _is_number(text: str) -> bool:
    try:
        return not Decimal(text).is_nan()
    except InvalidOperation:
        return False


def _authorize(action: int, name: str | None, detail: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_SELECT:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and name in _READABLE:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and detail != "load_extension":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def restricted(database: sqlite3.Connection) -> Iterator[None]:
    """Allow only reading within the block, and turn what SQLite refuses into :class:`RequestError`."""
    deadline = time.monotonic() + DEADLINE
    database.set_authorizer(_authorize)
    database.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_PER_CHECK)
    try:
        yield
    except (sqlite3.DatabaseError, sqlite3.Warning, sqlite3.ProgrammingError) as error:
        reason = f"took longer than {DEADLINE:.0f} s" if "interrupted" in str(error) else str(error)
        raise RequestError(f"cannot evaluate the expression: {reason}") from error
    except UnicodeEncodeError as error:
        raise RequestError("cannot evaluate the expression: it holds a lone surrogate") from error
    finally:
        database.set_progress_handler(None, 0)
        database.set_authorizer(None)


def where(database: sqlite3.Connection, expression: str) -> str:
    """The WHERE clause of a client's expression, ``""`` for a blank one.

    The text has to be an expression both between parentheses and between CASE WHEN and THEN: what closes the
    one bracket to smuggle in another clause is a syntax error in the other. To be called and used inside
    :func:`restricted`.
    """
    if not expression.strip():
        return ""
    database.execute(f"SELECT CASE WHEN\n{expression}\nTHEN 1 END FROM {RECORDS} LIMIT 0")
    return f"WHERE (\n{expression}\n)"


def select(
    database: sqlite3.Connection, statement: str, limit: int
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a client's SELECT; the headers and at most `limit` rows."""
    with restricted(database):
        cursor = database.execute(statement)
        return [header[0] for header in cursor.description], cursor.fetchmany(limit)


_scratch = threading.local()


def evaluate(expression: str) -> Any:
    """The value of an SQL expression that reads no table, such as a column's default."""
    if not hasattr(_scratch, "database"):
        _scratch.database = connect(":memory:")
    with restricted(_scratch.database):
        return _scratch.database.execute(f"SELECT (\n{expression}\n)").fetchone()[0]


_NAME = r"(?:\"[^\"]+\"|[\w$]+)"
_FROM = re.compile(rf"(\b(?:from|join)\s+)({_NAME}(?:\s*\.\s*{_NAME})?)", re.IGNORECASE)


def split_select(statement: str) -> tuple[str, str | None]:
    """Find the table of a SELECT, and put :data:`ROWS` in its place.

    Returns the statement to run and the table's name, None if the statement names no table. Raises
    :class:`RequestError` for anything that is not a SELECT from one table.
    """
    text = statement.strip().rstrip(";")
    if not re.match(r"select\b", text, re.IGNORECASE):
        raise RequestError("only SELECT statements are supported; use the table endpoints to change data")
    names = {
        ".".join(part.strip().strip('"') for part in match[2].split(".")) for match in _FROM.finditer(text)
    }
    if len(names) > 1:
        raise RequestError(f"a SELECT reads one table here, not {len(names)}: {', '.join(sorted(names))}")
    return _FROM.sub(rf"\1{ROWS}", text), next(iter(names), None)
