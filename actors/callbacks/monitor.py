"""A table monitor in the user's own process, without Ray, under the names of the official client."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from actors.callbacks.callback import Callback, CallbackType
from actors.callbacks.caller import Caller
from actors.callbacks.connection import source_of
from actors.callbacks.errors import MonitorError
from actors.callbacks.follower import Followed, Follower
from actors.callbacks.options import Options
from actors.callbacks.rows import FORMS
from actors.codec.codec import warm_up
from actors.monitor.asker import POLL_INTERVAL
from actors.monitor.kinetica import KineticaTable
from actors.monitor.source import SourceLost
from protocols.kinetica.client import KineticaClient, TableInfo
from protocols.kinetica.errors import KineticaError, TableNotFound

#: Seconds allowed to one try to reach the monitor port.
CONNECT_TIMEOUT = 5.0

#: Seconds for which a stop waits: so long rows that were received are handed out, and so long callbacks may take then.
STOP_PATIENCE = 5.0
STOP_TIMEOUT = 30.0

#: Seconds between questions at the shortest, whatever ``inactivity_timeout`` says.
MIN_INTERVAL = 0.1

#: The event of a table that a type of callback needs.
_EVENTS = {
    CallbackType.INSERT_DECODED: "insert",
    CallbackType.INSERT_RAW: "insert",
    CallbackType.INSERT_BATCH: "insert",
    CallbackType.UPDATED: "update",
    CallbackType.DELETED: "delete",
}

_numbers = itertools.count(1)


class TableMonitor:
    """Calls functions of yours when a table changes. Use it directly, or derive from it.

    Args:
        db: the server's URL, a list of the URLs of a ring, or a ``gpudb.GPUdb``, whose user and password are used too.
        table_name: the table, which must exist.
        callback_list: :class:`Callback` objects, one at most of each type, one at least for inserts, updates or
            deletes; None among them is left out.
        options: an :class:`Options`.
        username, password, token, verify, timeout: as of :class:`~protocols.kinetica.client.KineticaClient`.
        values: form of the values of ``INSERT_DECODED``: ``official`` (text, numbers and bytes as they travel, as the
            official client has them) or ``python`` (dates, decimals, lists, ...).

    The constructor asks the server for the table and its version (another one than is known gets a warning) and tries
    the monitor port, each with a deadline. Everything that can be wrong raises :class:`MonitorError` at the call.

    All callbacks are called on one thread, one after the other; the process lives until :meth:`stop_monitor`, or until
    the table is dropped. Also a context manager: ``with TableMonitor(...):`` starts and stops it.
    """

    def __init__(
        self,
        db: Any,
        table_name: str,
        callback_list: Sequence[Callback | None] | None,
        options: Options | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        verify: bool | str | os.PathLike[str] = True,
        timeout: float = 10.0,
        values: str = "official",
    ) -> None:
        if not isinstance(table_name, str) or not table_name.strip():
            raise MonitorError("table_name is no name; give the table's, as a string")
        if options is not None and not isinstance(options, Options):
            raise MonitorError(f"options is a {type(options).__name__}; give GPUdbTableMonitor.Options(...)")
        if values not in FORMS:
            raise MonitorError(f"values is {values!r}; give one of {', '.join(FORMS)}")
        self.db = db
        self.table_name = table_name
        self.options = Options.default() if options is None else options
        self.task_list: list[threading.Thread] = []
        self._callbacks = _checked(callback_list)
        self._values = values
        self._source = source_of(
            db, username=username, password=password, token=token, verify=verify, timeout=timeout
        )
        # Not of the registry, which would keep one for ever for every monitor that was.
        self._logger = logging.Logger(f"tablecast.monitor.{table_name}.{next(_numbers)}", logging.INFO)
        self._logger.parent = logging.getLogger("tablecast.monitor")
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._thread: threading.Thread | None = None
        self._ending: float | None = None  # until when (monotonic) rows are handed out after a stop
        info, self.full_url, self._port = self._look()
        self.type_id = info.type_id
        self.type_schema = info.type.definition

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table_name!r} at {self.full_url})"

    def __enter__(self) -> TableMonitor:
        self.start_monitor()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_monitor()

    # -- the official interface -----------------------------------------------------------------------------------

    def start_monitor(self) -> None:
        """Create the table monitors at the server, subscribe, and call back from then on.

        Raises :class:`MonitorError` if it runs already, or if the server or table can't be used.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise MonitorError(f"the monitor of {self.table_name} runs already; stop it first")
            self._ending = None
            events = tuple(dict.fromkeys(_EVENTS[kind] for kind in self._kinds() if kind in _EVENTS))
            warm_up()
            self._follower = self._followed(events)
            self._thread = threading.Thread(target=self._follower.run, name=f"monitor {self.table_name}")
            self.task_list = [self._thread]
            self._thread.start()

    def stop_monitor(self) -> None:
        """Stop calling back, and remove the table monitors from the server.

        Rows that were received are handed out before, for up to 5 seconds. Returns when that is done, or after 30
        seconds if a callback does not return. May be repeated, and called by a callback, where it does not wait.
        """
        with self._lock:
            follower, thread = self._follower, self._thread
            if follower is None or thread is None:
                return
            if self._ending is None:
                self._ending = time.monotonic() + STOP_PATIENCE
            follower.stop()
        if thread is threading.current_thread():
            return
        thread.join(STOP_TIMEOUT)
        if thread.is_alive():
            self._logger.error(
                "%s: a callback does not return; its thread goes on without us", self.table_name
            )

    @property
    def logging_level(self) -> int:
        """The level of this monitor's log, ``tablecast.monitor.<table>.<n>``; default ``logging.INFO``."""
        return self._logger.level

    @logging_level.setter
    def logging_level(self, value: int | str) -> None:
        try:
            self._logger.setLevel(value)
        except (ValueError, TypeError) as error:
            raise MonitorError(
                f"no log level: {error}; give logging.INFO, logging.DEBUG or another"
            ) from None

    # -- ours -------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor ended by itself (a dropped table, ``ABORT``)."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the monitor has ended, at most `timeout` seconds; returns whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.running

    def _followed(self, events: tuple[str, ...]) -> Follower:
        """Create the monitors at the server, and subscribe to them. Raises :class:`MonitorError`."""
        first = KineticaTable(Followed(self.table_name, events, self._source, self._port), counted=())
        # Later the server is asked for its port again: it may come back with another one.
        again = Followed(self.table_name, events, self._source, self.options.given_port)
        caller = Caller(self.table_name, self._callbacks, self._values, self._logger, self._expired)
        interval = max(MIN_INTERVAL, min(POLL_INTERVAL, self.options.inactivity_timeout / 1000))
        try:
            stream = first.open(())
            try:
                return Follower(
                    self.table_name,
                    stream,
                    lambda: KineticaTable(again, counted=()).open(()),
                    caller,
                    interval,
                    self._logger,
                )
            except SourceLost:
                stream.close()
                raise
        except SourceLost as error:
            raise MonitorError(f"table {self.table_name} can't be monitored: {error}") from error

    def _kinds(self) -> list[CallbackType]:
        return [each.callback_type for each in self._callbacks if each.event_callback is not None]

    def _expired(self) -> bool:
        return self._ending is not None and time.monotonic() >= self._ending

    def _look(self) -> tuple[TableInfo, str, int]:
        """Ask for the table and see whether the monitor port can be reached; returns that too."""
        try:
            client = KineticaClient(**self._source)
        except (ValueError, TypeError) as error:
            raise MonitorError(f"db: {error}") from None
        with client:
            try:
                # Another version than is known is logged here, as the official client warns of it.
                self._logger.debug("the server has version %s", client.version)
                info = client.show_table(self.table_name)
                port = self.options.given_port or client.monitor_port()
                host = client.monitor_host()
            except TableNotFound as error:
                raise MonitorError(f"there is no table {self.table_name} at {client.url}: {error}") from error
            except KineticaError as error:
                raise MonitorError(str(error)) from error
            url = client.url
        tries = self.options.max_retries + 1
        for left in reversed(range(tries)):
            with contextlib.suppress(OSError), socket.create_connection((host, port), CONNECT_TIMEOUT):
                return info, url, port
            if left:
                time.sleep(self.options.wait_interval)
        raise MonitorError(
            f"nothing answers at the monitor port {host}:{port} after {tries} tries; "
            "check the option monitor_port, and that no firewall blocks it"
        )


def _checked(callback_list: Sequence[Callback | None] | None) -> list[Callback]:
    """The callbacks, if a monitor can be made of them."""
    if not isinstance(callback_list, (list, tuple, set, frozenset)):
        kind = type(callback_list).__name__
        raise MonitorError(f"callback_list is a {kind}; give a list of Callback objects")
    callbacks = [each for each in callback_list if each is not None]
    for each in callbacks:
        if not isinstance(each, Callback):
            raise MonitorError(f"callback_list has a {type(each).__name__}; give Callback objects")
    kinds = [each.callback_type for each in callbacks]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise MonitorError(f"callback_list has two callbacks of {kind.name}; give one of each type")
    wanted = {each.callback_type for each in callbacks if each.event_callback is not None}
    if not wanted & set(CallbackType.monitor_types()):
        names = ", ".join(kind.name for kind in CallbackType.monitor_types())
        raise MonitorError(f"callback_list has nothing to monitor; give a callback of one of {names}")
    return callbacks
