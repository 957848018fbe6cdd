"""The SQLite database of a spool directory: its owner's lock, group commit, full disks and damage.

One process at a time holds a directory (an exclusive lock on the file ``lock``, which the kernel releases when the
process dies); within it, the spools of several tables may share the database. ``layout.py`` has its tables.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from actors.block import Block
from actors.errors import SpoolDamaged, SpoolError, SpoolFull, SpoolInUse
from actors.monitor import damage
from actors.monitor.changelog import Change, ChangeLog, RecordingConnection
from actors.monitor.damage import Damage
from actors.monitor.disk import Reserve, free_bytes, network_file_system
from actors.monitor.layout import FORMAT, INSERT_BLOCK, TABLES, block_crc, find_damage

#: Payloads of a megabyte are written half as fast again in pages of this size as in SQLite's own 4 KiB.
PAGE_BYTES = 16 << 10

#: Bytes after which the log is taken into the database; a large transaction makes it longer for a while.
LOG_BYTES = 4 << 20

#: Bytes of the file given back to the disk at a time.
SHRINK_BYTES = 8 << 20

#: Seconds to wait for SQLite's own locks, which only another program could hold.
BUSY_TIMEOUT = 5.0

#: Statements that SQLite need not parse again: those of many tables name the table.
STATEMENTS = 4096

NAME = "spool.db"

#: The beginning of a statement that creates something.
_CREATE = re.compile(r"^(CREATE (?:TABLE|UNIQUE INDEX|INDEX|TRIGGER)) ")

Work = Callable[[sqlite3.Connection], Any]
Result = TypeVar("Result")


class SpoolDatabase:
    """The database in `directory`, which is created if missing. Get one with :func:`share`. Thread-safe.

    Raises:
        SpoolInUse: another process holds it.
        SpoolError: it cannot be created, is on a network file system, or is of another version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.holders: set[str | None] = set()
        #: Is told of every transaction.
        self.log: ChangeLog | None = None
        self._mutex = threading.Lock()
        self._jobs: deque[tuple[Work, Future[Any]]] = deque()
        self._connections: list[sqlite3.Connection] = []
        self._reading, self._counting = threading.Lock(), threading.Lock()
        self._reserve = Reserve(directory)
        self._lock_file = self._lock()
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, (sqlite3.Error, OSError)):
                raise SpoolError(f"spool {directory}: {error}; check its disk and rights") from error
            raise

    # -- opening ------------------------------------------------------------------------------------------------

    def _lock(self) -> Any:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if kind := network_file_system(self.directory):
                raise SpoolError(
                    f"spool {self.directory} is on a network file system ({kind}), which may lose what it is told to"
                    " keep; set spool.path to a folder on a local disk"
                )
            file = open(self.directory / "lock", "a")  # noqa: SIM115 - held until close
        except OSError as error:
            raise SpoolError(
                f"spool {self.directory}: {error.strerror}; check the path and its rights"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise SpoolInUse(
                f"spool {self.directory} is held by another process; stop that one first"
            ) from error
        return file

    def _open(self) -> None:
        found = damage.marked(self.directory)
        if found is None and (why := self._try_twice()):
            self.mark(why)
            found = damage.marked(self.directory)
        if found is not None:
            self._disconnect()
            damage.set_aside(self.directory, NAME, found)
            self._lock_file.truncate(0)
            if why := self._try_twice():
                raise SpoolError(
                    f"spool {self.directory}: a new database is damaged too: {why}; check its disk"
                )
        self._reserve.make()
        if found is not None:
            with self.transaction() as db:
                db.execute("INSERT INTO damage VALUES (?, ?, ?)", found)
            damage.unmark(self.directory)

    def _try_twice(self) -> str | None:
        try:
            return self._try()
        except sqlite3.Error as error:
            if not _is_full(error):
                raise
            self._reserve.give_back()  # opening needs some room too, and then things can be deleted
            return self._try()

    def _try(self) -> str | None:
        """Connect; returns what is damaged, if anything is."""
        existed = os.fstat(self._lock_file.fileno()).st_size > 0
        path = self.directory / NAME
        if existed and not (path.exists() and path.stat().st_size):
            return "it is gone" if not path.exists() else "it is empty"
        self._disconnect()
        try:
            self._db = self._connect()
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if found != FORMAT and tables and found in range(1000):
                raise SpoolError(
                    f"spool {self.directory} is of format {found}, this version of Tablecast knows {FORMAT}; drain it"
                    " with the version that wrote it, or move the directory away"
                )
            if not tables:
                self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
                self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version={FORMAT}; COMMIT")
            self._db.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            self._db.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // PAGE_BYTES}")
            problem = find_damage(self._db) or self._truncated()  # which writes, so it comes last
            # Each on its own, so that neither waits for a commit nor for the other.
            self._reader, self._counter = self._connect(), self._connect()
        except sqlite3.Error as error:
            # What is asked here is right, so that an error in it is one of what is asked.
            if _is_damage(error) or _code(error) == sqlite3.SQLITE_ERROR:
                return str(error)
            raise
        except UnicodeDecodeError as error:
            return str(error)
        if not existed and problem is None:
            self._lock_file.write(f"Tablecast spool, format {FORMAT}\n")
            self._lock_file.flush()
            os.fsync(self._lock_file.fileno())
        return problem

    def _connect(self) -> RecordingConnection:
        db = sqlite3.connect(
            self.directory / NAME,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            factory=RecordingConnection,
            cached_statements=STATEMENTS,
        )
        self._connections.append(db)
        db.execute("PRAGMA synchronous=FULL")
        return db

    def _truncated(self) -> str | None:
        """With the log taken in, the file must have as many pages as it says."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        size, found = pages * PAGE_BYTES, (self.directory / NAME).stat().st_size
        return f"it has {found:,} bytes of {size:,}" if found < size else None

    # -- damage -------------------------------------------------------------------------------------------------

    def mark(self, why: str) -> None:
        """Note that the database is damaged: whoever opens it next sets it aside."""
        damage.mark(self.directory, NAME, why)

    def damages(self) -> list[Damage]:
        """The damaged databases that were set aside, in order of time."""
        return [Damage(*row) for row in self.read("SELECT time, why, file FROM damage ORDER BY time")]

    def damaged(self, why: str) -> SpoolDamaged:
        """What to raise on finding damage; marks it."""
        self.mark(why)
        return SpoolDamaged(f"spool {self.directory} is damaged: {why}; opening it again sets it aside")

    @contextmanager
    def _known_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _is_damage(error):
                raise self.damaged(str(error)) from error
            if _is_full(error):
                self._reserve.give_back()
                raise SpoolFull(f"the disk of spool {self.directory} is full") from error
            raise

    # -- writing ------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of one's own. Raises :class:`SpoolFull`, :class:`SpoolDamaged`."""
        with self._mutex, self._transaction() as db:
            yield db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._known_errors():
            self._db.execute("BEGIN IMMEDIATE")
            changes: list[Change] = []
            self._db.changes = changes if self.log else None
            try:
                yield self._db
                if self.log:
                    # Before they can be read.
                    self.log.expect((row[0], (row[1], row[2])) for sql, row in changes if sql == INSERT_BLOCK)
                self._db.execute("COMMIT")
            except BaseException:
                if self.log:
                    self.log.expect(())
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._db.changes = None
            if self.log:
                self.log.add(changes)

    def append(self, work: Callable[[sqlite3.Connection], Result], size: int) -> Result:
        """As :meth:`commit`, if there is room for `size` more bytes. Raises :class:`SpoolFull`."""
        if not self._reserve.there or not self._fits(size):
            raise SpoolFull(f"the disk of spool {self.directory} is full")
        return self._commit(work)

    def _fits(self, size: int) -> bool:
        """Whether `size` bytes fit into the log, and with the rest of the log into the database."""
        free = free_bytes(self.directory)
        if free >= 2 * (size + LOG_BYTES):
            return True
        return free >= size + max(0, size + LOG_BYTES - self.free_inside)

    def commit(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do `work` in a transaction, together with all that other threads have queued by then.

        It may be done on another thread. What it raises undoes its own changes only.
        """
        try:
            return self._commit(work)
        except SpoolFull:
            return self._commit(work)  # with the room that the reserve gave back

    def _commit(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        result: Future[Result] = Future()
        self._jobs.append((work, result))
        with self._mutex:
            if not result.done():  # whoever held the mutex before may have committed it
                self._commit_queued()
        return result.result()

    def _commit_queued(self) -> None:
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        done: list[tuple[Any, Exception | None]] = []
        try:
            with self._transaction() as db:
                done = [_attempt(db, work) for work, _ in jobs]
        except BaseException as error:
            for _, result in jobs:
                result.set_exception(error)
            return
        for (_, result), (value, failure) in zip(jobs, done, strict=True):
            if failure is None:
                result.set_result(value)
            else:
                result.set_exception(failure)

    def room(self) -> bool:
        """Whether there is room to append something; after a :class:`SpoolFull`, once there is again."""
        if self._reserve.there and self._fits(2 * LOG_BYTES):
            return True
        return self.shrink() and self._reserve.make() and self._fits(2 * LOG_BYTES)

    def shrink(self) -> bool:
        """Give :data:`SHRINK_BYTES` of the file that hold nothing back to the disk. Returns whether that went well."""
        try:
            with self._mutex, self._known_errors():
                # Not execute(), which does only the first page.
                self._db.executescript(f"PRAGMA incremental_vacuum({SHRINK_BYTES // PAGE_BYTES})")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except SpoolFull:
            return False
        return True

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a short SELECT, which is finished on return: an unfinished one would let the log grow."""
        with self._reading, self._known_errors():
            return self._reader.execute(query, values).fetchall()

    def count(self, query: str, values: Sequence[Any] = ()) -> tuple[int, ...]:
        """The first row of a SELECT that may take long (a second per million blocks)."""
        with self._counting, self._known_errors():
            row: tuple[int, ...] = self._counter.execute(query, values).fetchall()[0]
            return row

    def blocks(self, rows: Iterable[Sequence[Any]]) -> list[Block]:
        """The blocks of rows of ``layout.SELECT_BLOCK``. Raises :class:`SpoolDamaged` if one is not what was stored."""
        found = []
        for *values, crc in rows:
            block = Block(*values)
            if block_crc(block) != crc:
                raise self.damaged(f"block {block.id} is not what was stored")
            found.append(block)
        return found

    def snapshot(self, begin: Callable[[], None]) -> Iterator[Change]:
        """The changes that make any other database a copy of this one, as it is when `begin` is called."""
        db = self._connect()
        try:
            with self._mutex:
                db.execute("BEGIN")
                found = db.execute(
                    "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
                ).fetchall()
                begin()
            for _, _, sql in found:
                yield _CREATE.sub(r"\1 IF NOT EXISTS ", sql), ()
            tables = [name for kind, name, _ in found if kind == "table"]
            for table in tables:
                yield f"DELETE FROM {table}", ()
            # In the order in which they were created: what triggers have made of the blocks comes after them.
            for table in tables:
                for row in db.execute(f"SELECT * FROM {table}"):
                    yield f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row
        finally:
            db.close()
            with suppress(ValueError):  # closed with the others meanwhile
                self._connections.remove(db)

    @property
    def free_inside(self) -> int:
        """Bytes of the database's file that hold nothing."""
        ((pages,),) = self.read("PRAGMA freelist_count")
        return int(pages * PAGE_BYTES)

    # -- the end ------------------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        while self._connections:
            self._connections.pop().close()

    @property
    def open(self) -> bool:
        """Whether it is not closed."""
        return not self._lock_file.closed

    def close(self) -> None:
        """Close the database and release the lock."""
        with self._mutex, self._reading, self._counting:
            self._disconnect()
            self._lock_file.close()


_shared: dict[Path, SpoolDatabase] = {}
_sharing = threading.Lock()


def share(directory: Path, holder: str | None) -> SpoolDatabase:
    """The database of `directory`, which the spools of several tables of this process may hold at once.

    `holder` is the table; None: all of it, alone. Raises as :class:`SpoolDatabase` does.
    """
    key = Path(os.path.realpath(directory))
    with _sharing:
        database = _shared.get(key)
        if database is None:
            database = _shared[key] = SpoolDatabase(directory)
        elif holder is None or None in database.holders or holder in database.holders:
            raise SpoolInUse(
                f"spool {directory} is held by another monitor of this process; stop that one first"
            )
        database.holders.add(holder)
        return database


def release(database: SpoolDatabase, holder: str | None) -> None:
    """`holder` is done with `database`; after the last one it is closed. Calling it again does nothing."""
    with _sharing:
        database.holders.discard(holder)
        if not database.holders and database.open:
            database.close()
            del _shared[Path(os.path.realpath(database.directory))]


def _attempt(db: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
    """Do `work`, or undo it; returns its result and what it raised."""
    db.execute("SAVEPOINT job")
    try:
        value = work(db)
    except Exception as error:
        if not db.in_transaction or (isinstance(error, sqlite3.Error) and _is_full(error)):
            raise  # SQLite has given up all of it, or will
        db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")
        return None, error
    db.execute("RELEASE job")
    return value, None


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0)


def _is_full(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def _is_damage(error: sqlite3.Error) -> bool:
    """An operational error (disk full, no rights) says nothing of what is stored; text that is none does."""
    torn_text = str(error).startswith("Could not decode to UTF-8")
    return torn_text or _code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
