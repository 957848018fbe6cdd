"""Kinetica tables as a source: table monitors created over HTTP, their pushes received over ZeroMQ."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.overlap import RECENT, Overlap
from actors.monitor.server import Server, lease
from actors.monitor.settings import SourceSettings
from actors.monitor.source import (
    Described,
    Following,
    Page,
    Received,
    SourceLost,
    Switched,
    TableGone,
    TableReader,
)
from protocols.kinetica.client import KineticaClient, TableInfo
from protocols.kinetica.errors import KineticaError, RequestRefused, TableNotFound
from protocols.kinetica.subscription import (
    MAX_BYTES,
    MAX_FRAMES,
    Link,
    Message,
    Subscription,
    topics_are_distinguishable,
)
from protocols.kinetica.types import TableType

log = logging.getLogger(__name__)

#: Seconds allowed to the connection to the publisher.
CONNECT_TIMEOUT = 10.0

#: Seconds without a message after which the overlap of two topics is decided with what came.
SETTLE = 1.0

#: Values in one expression that reads rows again.
REREAD_VALUES = 2000

#: Events that are counted although nobody may want their records: they make the account of the table exact.
COUNTED = ("update", "delete")

#: Seconds between questions whether the topics still exist, for all tables of a process at once.
MONITOR_INTERVAL = 0.5


def block_schema(definition: str, properties: Mapping[str, Sequence[str]], type_id: str = "") -> str:
    """The schema text that blocks carry; equal schemas give equal text."""
    schema = {"definition": definition, "properties": dict(properties), "type_id": type_id}
    return json.dumps(schema, sort_keys=True)


def schema_type(schema: str) -> TableType:
    """The table type in a block's schema text."""
    parts = json.loads(schema)
    return TableType.parse(parts["definition"], parts["properties"])


class KineticaTable:
    """One table of a Kinetica server; `counted` events are received beside inserts although nobody follows them."""

    def __init__(self, settings: SourceSettings, counted: Sequence[str] = COUNTED) -> None:
        self._settings = settings
        self._counted = counted

    def open(self, stale_topics: Iterable[str]) -> TableStream:
        """Create one table monitor per event kind and subscribe to all of them on one socket."""
        server = lease(self._settings.source)
        try:
            for topic in stale_topics:
                _clear(server.client, topic)
            return TableStream(self._settings, server, counted=self._counted)
        except KineticaError as error:
            raise _lost(error) from error

    def join(self, following: Following) -> TableStream:
        """Subscribe to table monitors that another process has created, and clears."""
        server = lease(self._settings.source)
        try:
            return TableStream(self._settings, server, following)
        except KineticaError as error:
            raise _lost(error) from error

    def reader(self) -> TableReader:
        """What reads the table's rows."""
        return KineticaReader(self._settings)


class TableStream:
    """An open subscription; closing it clears its monitors at the server, unless it has only joined another's."""

    def __init__(
        self,
        settings: SourceSettings,
        server: Server,
        joined: Following | None = None,
        counted: Sequence[str] = COUNTED,
    ) -> None:
        self._server = server
        self._client = server.client
        self._table = settings.table
        self._wanted = settings.events
        self._counted = counted
        self._follows_inserts = "insert" in settings.events
        self._counts: dict[str, ReferenceDecoder] = {}
        self._linked = True  # whether the connection was never lost
        self._schemas: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._described: Described | None = None
        self._followed: Described | None = None  # of the newest topic
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
        self._injected: deque[Received] = deque()
        self._received_at: dict[str, float] = {}
        self._drained_at = 0.0  # when nothing waited to be received
        self._owned: Callable[[], bool] = lambda: joined is None
        self._host = ""
        self._listed: set[str] = set()  # topics that the server has ever said that it knows
        self._checked = 0.0
        try:
            self._subscribe(settings, joined or self._create(settings))
        except ValueError as error:
            self.close()
            raise SourceLost(f"table {settings.table}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _create(self, settings: SourceSettings) -> Following:
        described = self.describe()
        schemas = {}
        events = dict.fromkeys((*settings.events, *(self._counted if self._follows_inserts else ())))
        for event in events:
            monitor = self._client.create_table_monitor(self._table, event)
            self._kinds[monitor.topic_id] = event
            inserts = event == "insert"
            schemas[event] = described.schema if inserts else block_schema(monitor.type_schema, {})
        return Following(self._kinds, schemas, described if self._follows_inserts else None)

    def _subscribe(self, settings: SourceSettings, following: Following) -> None:
        self._kinds, self._schemas = dict(following.topics), dict(following.schemas)
        self._described = self._followed = following.described
        self._insert_topic = next((topic for topic, kind in self._kinds.items() if kind == "insert"), "")
        self._received_at = dict.fromkeys(self._schemas, time.monotonic())
        found = {kind: schema_type(schema) for kind, schema in self._schemas.items()}
        self._counts = {kind: ReferenceDecoder(t.columns) for kind, t in found.items() if kind != "insert"}
        types = list(found.values())
        host = self._host = self._client.monitor_host()
        port = settings.monitor_port or self._server.monitor_port()
        exact = topics_are_distinguishable(self._kinds, types)
        self._subscription = Subscription(host, port, self._kinds, exact_topics=exact)
        if not self._subscription.wait_connected(CONNECT_TIMEOUT):
            raise SourceLost(
                f"nothing answers at the monitor port {host}:{port} within {CONNECT_TIMEOUT:.0f} s; "
                "check source.kinetica.monitor_port and that no firewall blocks it"
            )
        # So that they are known to be listed, should they go at once.
        self._check_topics(age=0.0)

    @property
    def schemas(self) -> Mapping[str, str]:
        return {kind: schema for kind, schema in self._schemas.items() if kind in self._wanted}

    @property
    def described(self) -> Described | None:
        return self._described

    @property
    def topics(self) -> Sequence[str]:
        with self._lock:
            return (*self._kinds, *sorted(self._spare | self._retired))

    @property
    def following(self) -> Following | None:
        with self._lock:
            if self._closed:
                return None
            newest = self._new_topic if self._overlap is not None else self._insert_topic
            topics = {
                topic: kind for topic, kind in self._kinds.items() if kind != "insert" or topic == newest
            }
            return Following(topics, dict(self._schemas), self._followed)

    def inject(self, received: Received) -> None:
        self._injected.append(received)
        self.wake()

    def own(self, owned: Callable[[], bool]) -> None:
        self._owned = owned

    def quiet(self, seconds: float) -> frozenset[str]:
        now = time.monotonic()
        if now > self._drained_at + seconds / 2:
            return frozenset()
        return frozenset(kind for kind, at in self._received_at.items() if now > at + seconds)

    def receive(self, timeout: float) -> list[Received | Switched]:
        if self._injected:
            received = self._injected.popleft()
            self._received_at[received.kind] = time.monotonic()
            if received.kind == "insert":
                return [received]
            return [
                received._replace(rows=sum(self._count(received.kind, frame) for frame in received.frames))
            ]
        if self._lost is not None:
            raise SourceLost(self._lost)
        assert self._subscription is not None
        out: list[Received | Switched] = []
        frames = size = 0
        for item in self._subscription.receive(int(timeout * 1000)):
            if isinstance(item, Message):
                out += self._message(item)
                frames += len(item.frames) + 1
                size += sum(map(len, item.frames))
            elif item is not Link.CONNECTED:
                # Monitors do not survive their server, so a new connection may bring nothing for ever: begin anew
                # once what has arrived is handed over.
                self._linked = False
                self._lost = "the connection to the monitor port was lost"
        if frames < MAX_FRAMES and size < MAX_BYTES:  # else more may wait
            self._drained_at = time.monotonic()
        if self._overlap is not None:
            out += self._finish_overlap(self._overlap, bool(out))
        return out

    def _message(self, message: Message) -> list[Received | Switched]:
        kind = self._kinds.get(message.topic)
        if kind is None:
            return []  # of a topic that was left
        self._received_at[kind] = time.monotonic()
        if kind != "insert":
            return [Received(kind, message.frames, sum(self._count(kind, frame) for frame in message.frames))]
        if self._overlap is None:
            self._recent.append(message.frames)
            return [Received(kind, message.frames)]
        if message.topic == self._new_topic:
            return self._overlap.new(message.frames)
        self._recent.append(message.frames)
        return self._overlap.old(message.frames)

    def _count(self, kind: str, frame: bytes) -> int:
        """The rows that an update or a delete tells of; 0 if it cannot be read, which makes it a dead letter."""
        try:
            return next(
                (int(value) for value in self._counts[kind].read(frame) if isinstance(value, (int, float))), 0
            )
        except FrameError:
            return 0

    @property
    def checked(self) -> float:
        return self._checked

    @property
    def emptied(self) -> bool:
        return self._subscription is not None and self._subscription.emptied

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
            with self._lock:
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
        self._check_topics()
        return _described(info)

    def _clear_retired(self) -> None:
        for topic in sorted(self._retired):
            _clear(self._client, topic)
            with self._lock:
                self._retired.discard(topic)

    def check(self) -> None:
        self._check_topics()

    def _check_topics(self, age: float | None = None) -> None:
        """Topics go with their table and with their server, also where name, type and connection stay or come back."""
        now = time.monotonic()
        with self._lock:
            topics = set(self._kinds)
        if not topics:
            return
        try:
            at, listed = self._server.topics(MONITOR_INTERVAL if age is None else age)
        except RequestRefused:
            self._checked = now  # not allowed to ask
            return
        except KineticaError as error:
            raise _lost(error) from error
        if self._subscription is not None and self._client.monitor_host() != self._host:
            raise SourceLost(f"the source failed over to {self._client.url}")
        with self._lock:
            gone = (self._listed & topics & set(self._kinds)) - listed
        self._listed |= listed & topics
        if gone and not self._ended:
            if self._linked:
                raise TableGone(
                    f"the monitor of table {self._table} is gone: the table was dropped and created again"
                )
            raise SourceLost(f"the monitor of table {self._table} is gone: the server was restarted")
        self._checked = at

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
            self._overlap, self._new_topic = Overlap(self._recent), topic
            self._schemas["insert"], self._followed = described.schema, described
        self._subscription.exact_topics = topics_are_distinguishable(self._kinds, types)
        self._quiet_since = self._waiting_since = time.monotonic()
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
        self._clear_topics()

    def wake(self) -> None:
        if self._subscription is not None:
            self._subscription.wake()

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        with self._lock:
            released, self._closed = self._closed, True
        self._clear_topics()
        if not released:
            self._server.release()

    def _clear_topics(self) -> None:
        for topic in self.topics if self._owned() else ():
            _clear(self._client, topic)


class KineticaReader:
    """Reads a table."""

    def __init__(self, settings: SourceSettings) -> None:
        self._server = lease(settings.source)
        self._client = self._server.client
        self._table = settings.table

    def described(self) -> Described:
        return _described(self._show(sizes=False))

    def size(self) -> int:
        size = self._show(sizes=True).size
        assert size is not None
        return size

    def _show(self, sizes: bool) -> TableInfo:
        try:
            return self._client.show_table(self._table, sizes=sizes)
        except KineticaError as error:
            raise _lost(error) from error

    def page(self, expression: str, column: str, limit: int, descending: bool = False) -> Page:
        try:
            page = self._client.get_records(
                self._table, expression=expression, sort_by=column, descending=descending, limit=limit
            )
            # The properties do not come with the rows: they are of the same type if its id is.
            described = self.described()
        except KineticaError as error:
            raise _lost(error) from error
        if page.type_id != described.type_id:
            raise SourceLost(f"table {self._table} was altered while it was read")
        return Page(page.records, described, page.total)

    def close(self) -> None:
        self._server.release()


def _described(info: TableInfo) -> Described:
    return Described(info.type_id, block_schema(info.type.definition, info.type.properties, info.type_id))


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
