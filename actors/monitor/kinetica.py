"""Kinetica tables as a source: table monitors created over HTTP, their pushes received over ZeroMQ."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence

from actors.monitor.receiver import SourceLost
from actors.monitor.settings import MonitorSettings
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.errors import KineticaError
from protocols.kinetica.subscription import Link, Subscription, topics_are_distinguishable
from protocols.kinetica.types import TableType

log = logging.getLogger(__name__)

#: Seconds allowed to the connection to the publisher.
CONNECT_TIMEOUT = 10.0


def block_schema(definition: str, properties: Mapping[str, Sequence[str]]) -> str:
    """The schema text that blocks carry; equal schemas give equal text."""
    return json.dumps({"definition": definition, "properties": dict(properties)}, sort_keys=True)


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
            raise SourceLost(str(error)) from error


class TableStream:
    """An open subscription; closing it clears its monitors at the server."""

    def __init__(self, settings: MonitorSettings, client: KineticaClient) -> None:
        self._client = client
        self._schemas: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._subscription: Subscription | None = None
        self._lost: str | None = None
        try:
            self._open(settings)
        except ValueError as error:
            self.close()
            raise SourceLost(f"table {settings.table}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _open(self, settings: MonitorSettings) -> None:
        properties = self._client.show_table(settings.table).type.properties
        types = []
        for event in settings.events:
            monitor = self._client.create_table_monitor(settings.table, event)
            self._kinds[monitor.topic_id] = event
            self._schemas[event] = block_schema(monitor.type_schema, properties if event == "insert" else {})
            types.append(TableType.parse(monitor.type_schema))
        host = self._client.monitor_host()
        port = settings.monitor_port or self._client.monitor_port()
        exact = topics_are_distinguishable(self.topics, types)
        self._subscription = Subscription(host, port, self.topics, exact_topics=exact)
        if not self._subscription.wait_connected(CONNECT_TIMEOUT):
            raise SourceLost(
                f"nothing answers at the monitor port {host}:{port} within {CONNECT_TIMEOUT:.0f} s; "
                "check source.kinetica.monitor_port and that no firewall blocks it"
            )

    @property
    def schemas(self) -> Mapping[str, str]:
        return self._schemas

    @property
    def topics(self) -> Sequence[str]:
        return tuple(self._kinds)

    def receive(self, timeout: float) -> list[tuple[str, Sequence[bytes]]]:
        if self._lost is not None:
            raise SourceLost(self._lost)
        received: list[tuple[str, Sequence[bytes]]] = []
        assert self._subscription is not None
        for item in self._subscription.receive(int(timeout * 1000)):
            if not isinstance(item, Link):
                received.append((self._kinds[item.topic], item.frames))
            elif item is not Link.CONNECTED:
                # Monitors do not survive their server, so a new connection may bring nothing for ever: begin anew
                # once what has arrived is handed over.
                self._lost = "the connection to the monitor port was lost"
        return received

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        for topic in self.topics:
            _clear(self._client, topic)
        self._client.close()


def _clear(client: KineticaClient, topic: str) -> None:
    try:
        client.clear_table_monitor(topic)
    except (
        KineticaError
    ) as error:  # already gone with its table or server, or out of reach: nothing depends on it
        log.info("table monitor %s not cleared: %s", topic, error)
