"""Kinetica tables as a source: table monitors created over HTTP, their pushes received over ZeroMQ."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.overlap import RECENT, Overlap
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Described, Received, SourceLost, Switched, TableGone
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError, RequestRefused, TableNotFound
from protocols.kinetica.subscription import Link, Message, Subscription, topics_are_distinguishable
from protocols.kinetica.types import TableType

log = logging.getLogger(__name__)

#: Seconds allowed to the connection to the publisher.
CONNECT_TIMEOUT = 10.0

#: Seconds without a message after which the overlap of two topics is decided with what came.
SETTLE = 1.0

#: Values in one expression that reads rows again.
REREAD_VALUES = 2000

#: Seconds between questions whether the topic still exists.
MONITOR_INTERVAL = 1.0


def block_schema(definition: str, properties: Mapping[str, Sequence[str]], type_id: str = "") -> str:
    """The schema text that blocks carry; equal schemas give equal text."""
    schema = {"definition": definition, "properties": dict(properties), "type_id": type_id}
    return json.dumps(schema, sort_keys=True)


def schema_type(schema: str) -> TableType:
    """The table type in a block's schema text."""
    parts = json.loads(schema)
    return TableType.parse(parts["definition"], parts["properties"])


class KineticaTable:
    """One table of a Kinetica server."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings

    def open(self, stale_topics: Iterable[str]) -> TableStream:
        """Create one table monitor per event kind and subscribe to all of them on one socket."""
        settings = self._settings
        client = KineticaClient(**settings.source)
        try:
            for topic in stale_topics:
                _clear(client, topic)
            return TableStream(settings, client)
        except KineticaError as error:
            client.close()
            raise _lost(error) from error


class TableStream:
    """An open subscription; closing it clears its monitors at the server."""

    def __init__(self, settings: MonitorSettings, client: KineticaClient) -> None:
        self._client = client
        self._table = settings.table
        self._follows_inserts = "insert" in settings.events
        self._schemas: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._described: Described | None = None
        self._subscription: Subscription | None = None
        self._lost: str | None = None
        self._insert_topic = ""
        self._recent: deque[Sequence[bytes]] = deque(maxlen=RECENT)
        self._overlap: Overlap | None = None
        self._new_topic = ""
        self._quiet_since = self._waiting_since = 0.0
        self._lock = threading.Lock()
        #: Created and not followed (yet, or any more); to be cleared.
        self._spare: set[str] = set()
        self._retired: set[str] = set()
        self._closed = False
        self._ended = False  # whether we cleared our topics ourselves
        self._listed = False  # whether the server has ever said that it knows our topic
        self._asked_for_topic = 0.0
        try:
            self._open(settings)
        except ValueError as error:
            self.close()
            raise SourceLost(f"table {settings.table}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _open(self, settings: MonitorSettings) -> None:
        described = self.describe()
        self._described = described if self._follows_inserts else None
        types = []
        for event in settings.events:
            monitor = self._client.create_table_monitor(self._table, event)
            self._kinds[monitor.topic_id] = event
            if event == "insert":
                self._insert_topic = monitor.topic_id
                self._schemas[event] = described.schema
                types.append(schema_type(described.schema))
            else:
                self._schemas[event] = block_schema(monitor.type_schema, {})
                types.append(TableType.parse(monitor.type_schema))
        host = self._client.monitor_host()
        port = settings.monitor_port or self._client.monitor_port()
        exact = topics_are_distinguishable(self._kinds, types)
        self._subscription = Subscription(host, port, self._kinds, exact_topics=exact)
        if not self._subscription.wait_connected(CONNECT_TIMEOUT):
            raise SourceLost(
                f"nothing answers at the monitor port {host}:{port} within {CONNECT_TIMEOUT:.0f} s; "
                "check source.kinetica.monitor_port and that no firewall blocks it"
            )

    @property
    def schemas(self) -> Mapping[str, str]:
        return self._schemas

    @property
    def described(self) -> Described | None:
        return self._described

    @property
    def topics(self) -> Sequence[str]:
        with self._lock:
            return (*self._kinds, *sorted(self._spare | self._retired))

    def receive(self, timeout: float) -> list[Received | Switched]:
        if self._lost is not None:
            raise SourceLost(self._lost)
        assert self._subscription is not None
        out: list[Received | Switched] = []
        for item in self._subscription.receive(int(timeout * 1000)):
            if isinstance(item, Message):
                out += self._message(item)
            elif item is not Link.CONNECTED:
                # Monitors do not survive their server, so a new connection may bring nothing for ever: begin anew
                # once what has arrived is handed over.
                self._lost = "the connection to the monitor port was lost"
        if self._overlap is not None:
            out += self._finish_overlap(self._overlap, bool(out))
        return out

    def _message(self, message: Message) -> list[Received | Switched]:
        kind = self._kinds.get(message.topic)
        if kind is None:
            return []  # of a topic that was left
        if kind != "insert":
            return [Received(kind, message.frames)]
        if self._overlap is None:
            self._recent.append(message.frames)
            return [Received(kind, message.frames)]
        if message.topic == self._new_topic:
            return self._overlap.new(message.frames)
        self._recent.append(message.frames)
        return self._overlap.old(message.frames)

    def _finish_overlap(self, overlap: Overlap, busy: bool) -> list[Received | Switched]:
        """Leave the old topic when the overlap is over."""
        now = time.monotonic()
        if busy:
            self._quiet_since = now
        if not overlap.waiting:
            self._waiting_since = now
        out: list[Received | Switched] = []
        quiet = now >= self._quiet_since + SETTLE
        # The twin of a message comes with the same operation; if it has not by then, it never will.
        if quiet or now >= self._waiting_since + SETTLE:
            out = overlap.settle(quiet)
        if overlap.over:
            self._leave(self._insert_topic)
            self._insert_topic, self._overlap = self._new_topic, None
            self._recent.clear()
        return out

    def _leave(self, topic: str) -> None:
        """Receive `topic` no more; :meth:`describe` clears it, as that waits for an answer."""
        assert self._subscription is not None
        self._subscription.drop(topic)
        with self._lock:
            del self._kinds[topic]
            self._retired.add(topic)

    def describe(self) -> Described:
        self._clear_retired()
        try:
            info = self._client.show_table(self._table)
        except KineticaError as error:
            raise _lost(error) from error
        schema = block_schema(info.type.definition, info.type.properties, info.type_id)
        if schema == self._schemas.get("insert") and not self._spare and self._overlap is None:
            self._check_topic(self._insert_topic)
        return Described(info.type_id, schema)

    def _clear_retired(self) -> None:
        for topic in sorted(self._retired):
            _clear(self._client, topic)
            with self._lock:
                self._retired.discard(topic)

    def _check_topic(self, topic: str) -> None:
        """A table that is dropped and created again at once has its name and its type, but no topic any more."""
        if time.monotonic() < self._asked_for_topic + MONITOR_INTERVAL:
            return
        self._asked_for_topic = time.monotonic()
        try:
            known = any(monitor.topic_id == topic for monitor in self._client.show_table_monitors())
        except RequestRefused:
            return  # not allowed to ask
        except KineticaError as error:
            raise _lost(error) from error
        if self._listed and not known and topic == self._insert_topic and not self._ended:
            raise TableGone(
                f"the monitor of table {self._table} is gone: the table was dropped and created again"
            )
        self._listed = known

    def renew(self) -> str:
        try:
            topic = self._client.create_table_monitor(self._table, "insert").topic_id
        except KineticaError as error:
            raise _lost(error) from error
        with self._lock:
            self._spare.add(topic)
            closed = self._closed
        if closed:
            _clear(self._client, topic)
        return topic

    def discard(self, topic: str) -> None:
        with self._lock:
            self._spare.discard(topic)
            self._retired.add(topic)

    def follow(self, topic: str, described: Described) -> None:
        assert self._subscription is not None
        if self._overlap is not None:
            # Altered once more before the change before was over: its topic goes, the older one serves as before.
            self._leave(self._new_topic)
        types = [schema_type(schema) for schema in (*self._schemas.values(), described.schema)]
        with self._lock:
            self._spare.discard(topic)
            self._kinds[topic] = "insert"
        self._subscription.exact_topics = topics_are_distinguishable(self._kinds, types)
        self._overlap, self._new_topic = Overlap(self._recent), topic
        self._quiet_since = self._waiting_since = time.monotonic()
        self._schemas["insert"] = described.schema
        self._subscription.add(topic)

    def reread(
        self, described: Described, column: str, values: Sequence[object]
    ) -> list[tuple[object, bytes]]:
        table_type = schema_type(described.schema)
        reader, index = ReferenceDecoder(table_type.columns), table_type.names.index(column)
        found: list[tuple[object, bytes]] = []
        try:
            for start in range(0, len(values), REREAD_VALUES):
                part = ", ".join(map(_literal, values[start : start + REREAD_VALUES]))
                page = self._client.get_records(self._table, expression=f"{column} IN ({part})")
                if page.type_id != described.type_id:
                    raise SourceLost(f"table {self._table} was altered again")
                if page.has_more:
                    raise SourceLost(f"column {column} has too many rows of one value to be increasing")
                found += [(reader.read(record)[index], record) for record in page.records]
        except KineticaError as error:
            raise _lost(error) from error
        except FrameError as error:
            raise SourceLost(f"table {self._table}: {error}") from error
        return found

    def end(self) -> None:
        self._ended = True
        for topic in self.topics:
            _clear(self._client, topic)

    def wake(self) -> None:
        if self._subscription is not None:
            self._subscription.wake()

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        with self._lock:
            self._closed = True
        for topic in self.topics:
            _clear(self._client, topic)
        self._client.close()


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _lost(error: KineticaError) -> SourceLost:
    return TableGone(str(error)) if isinstance(error, TableNotFound) else SourceLost(str(error))


def _clear(client: KineticaClient, topic: str) -> None:
    try:
        client.clear_table_monitor(topic)
    except KineticaError as error:
        # Already gone with its table or server, or out of reach: nothing depends on it.
        log.info("table monitor %s not cleared: %s", topic, error)
