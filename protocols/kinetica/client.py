"""Kinetica's control plane over HTTP: tables, records and table monitors, as typed methods.

Not here: how calls travel and fail over (``ring.py``), the event stream (``subscription.py``), the meaning
of column values (``types.py``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from protocols.closing import Closing
from protocols.kinetica import wire
from protocols.kinetica.errors import (
    KineticaError,
    MonitorsDisabled,
    RequestRefused,
    TableNotFound,
    UnexpectedReply,
)
from protocols.kinetica.ring import ClusterStatus, Ring, parse_status
from protocols.kinetica.types import TableType

#: The server version (its first two components) whose request and response records ``wire.py`` holds.
KNOWN_VERSION = "7.2"

#: What ``table_descriptions`` may say of a table that holds rows of its own; mostly it says nothing.
_BASE_TABLE = {"REPLICATED", "MATERIALIZED_EXTERNAL_TABLE"}

#: Schemas that a server fills itself.
_SYSTEM_SCHEMAS = ("ki_catalog", "information_schema", "pg_catalog", "SYSTEM")

_log = logging.getLogger(__name__)


class TableInfo(NamedTuple):
    """A table. `type_id` changes whenever its columns do; `size` is its row count, None if not asked for."""

    name: str
    type_id: str
    type: TableType
    size: int | None
    additional_info: dict[str, str]


class InsertCounts(NamedTuple):
    """Rows that an insert added, and rows that it updated by primary key."""

    inserted: int
    updated: int


class RecordPage(NamedTuple):
    """Records as bare Avro of `type_schema`; `has_more` if the server stopped before the end of the set."""

    records: list[bytes]
    type_id: str
    type_schema: str
    total: int
    has_more: bool


class MonitorInfo(NamedTuple):
    """A table monitor: the topic its events are published under, and the Avro schema of their frames."""

    topic_id: str
    type_schema: str


class TableMonitor(NamedTuple):
    """An entry of :meth:`KineticaClient.show_table_monitors`."""

    topic_id: str
    table: str
    event: str


class KineticaClient(Closing):
    """A client of one Kinetica cluster, or of a ring of them, for use from any number of threads.

    Args:
        urls: base URLs in order of preference, for example ``http://host:9191`` or
            ``https://host:8082/gpudb-0``. An ``http`` URL without port and path gets port 9191. A
            ``user:password@`` in a URL is taken out of it and used for that URL only, unless `username` is
            given.
        username, password: basic authentication, for every URL.
        token: an OAuth bearer token, which wins over any password.
        timeout: seconds to wait for a connection, and then for each part of the answer; default 10.
        verify: True to check TLS certificates against the usual authorities, or the path of a file or
            directory of trusted ones. There is no way to skip the check.

    The constructor sends nothing. Proxies and credentials of the environment (``HTTP_PROXY``, ``.netrc``) are
    not used. Raises ``TypeError`` and ``ValueError`` for arguments that cannot be; calls raise :class:`KineticaError`.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout: float = 10.0,
        verify: Literal[True] | str | os.PathLike[str] = True,
    ) -> None:
        self._ring = Ring(
            urls, username=username, password=password, token=token, timeout=timeout, verify=verify
        )
        self._version: str | None = None

    def __repr__(self) -> str:
        return f"KineticaClient({list(self._ring.urls)!r})"

    def close(self) -> None:
        """Close the idle connections."""
        self._ring.close()

    @property
    def url(self) -> str:
        """The base URL in use, without credentials."""
        return self._ring.url

    def call(self, endpoint: str, **fields: Any) -> dict[str, Any]:
        """Call any endpoint of ``wire.ENDPOINTS`` and return its response record.

        Request fields that are not given are sent empty. Raises ``ValueError`` for an unknown endpoint or
        field or a value that does not fit, :class:`RequestRefused` when the server says no,
        :class:`AuthenticationFailed`, :class:`ConnectionFailed` or :class:`ServerUnavailable` when every
        cluster failed, and :class:`OutcomeUnknown` when a change may have been applied though no answer came.
        """
        return self._ring.call(endpoint, fields)

    def _call_on_table(self, endpoint: str, table: str, **fields: Any) -> dict[str, Any]:
        # The text of a refusal is not specified, so whether the table is missing is asked, not read from it.
        if not table:
            raise ValueError(f"{endpoint} needs a table name; an empty one would mean all tables")
        try:
            return self.call(endpoint, table_name=table, **fields)
        except RequestRefused as refusal:
            try:
                missing = not self.has_table(table)
            except KineticaError:
                missing = False
            if missing:
                raise TableNotFound(f"{refusal}; there is no table {table}, create it first") from refusal
            raise

    # ---- the server

    def properties(self) -> dict[str, str]:
        """The server's configuration and version (``property_map``). An unknown version is logged once."""
        properties: dict[str, str] = self.call("/show/system/properties")["property_map"]
        version = properties.get("version.gpudb_core_version", "")
        if self._version is None and ".".join(version.split(".")[:2]) != KNOWN_VERSION:
            _log.warning(
                "Kinetica at %s has version %s; this client knows %s and may misread it",
                self.url,
                version or "unknown",
                KNOWN_VERSION,
            )
        self._version = version
        return properties

    @property
    def version(self) -> str:
        """The server's version, for example ``7.2.3.18.20260101``; asked for once."""
        if self._version is None:
            self.properties()
        return self._version or ""

    def status(self) -> ClusterStatus:
        """The status of the cluster in use."""
        return parse_status(self.call("/show/system/status")["status_map"])

    def monitor_port(self) -> int:
        """The ZeroMQ port of the table monitors; 9002 if the server does not say.

        Raises :class:`MonitorsDisabled` if it is -1, :class:`UnexpectedReply` if it is no port at all.
        """
        text = self.properties().get("conf.set_monitor_port", "").strip()
        if not text:
            return wire.DEFAULT_MONITOR_PORT
        if text == "-1":
            raise MonitorsDisabled(
                f"{self.url} publishes no table-monitor events; set set_monitor_port in gpudb.conf, restart"
            )
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            raise UnexpectedReply(
                f"{self.url}: conf.set_monitor_port is {text!r}, which is no port; check gpudb.conf"
            )
        return int(text)

    def monitor_host(self) -> str:
        """The host that publishes table-monitor events: the host of the URL in use."""
        return urlsplit(self.url).hostname or ""

    # ---- tables

    def has_table(self, table: str) -> bool:
        return bool(self.call("/has/table", table_name=table)["table_exists"])

    def show_table(self, table: str, *, sizes: bool = False) -> TableInfo:
        """A table's type, and with `sizes` its row count. Raises :class:`TableNotFound`."""
        options = {"get_sizes": "true"} if sizes else {}
        reply = self._call_on_table("/show/table", table, options=options)
        try:
            table_type = TableType.parse(reply["type_schemas"][0], reply["properties"][0])
            type_id, additional_info = reply["type_ids"][0], reply["additional_info"][0]
        except (IndexError, ValueError) as error:
            raise UnexpectedReply(
                f"{self.url}: /show/table describes no table {table} with columns: {error}"
            ) from error
        size = reply["total_full_size"] if sizes else None
        return TableInfo(table, type_id, table_type, size, additional_info)

    def show_tables(self) -> list[TableInfo]:
        """Every table of the server that rows are inserted into: no views, and none of the server's own."""
        reply = self.call("/show/table", table_name="*", options={"show_children": "true"})
        columns = (
            "table_names",
            "table_descriptions",
            "type_ids",
            "type_schemas",
            "properties",
            "additional_info",
        )
        found = []
        try:
            for name, kinds, type_id, schema, properties, info in zip(
                *(reply[column] for column in columns), strict=True
            ):
                schema_name = info.get("schema_name") or name.partition(".")[0]
                if _BASE_TABLE.issuperset(kinds) and schema_name not in _SYSTEM_SCHEMAS:
                    full = name if "." in name else f"{schema_name}.{name}"
                    found.append(TableInfo(full, type_id, TableType.parse(schema, properties), None, info))
        except ValueError as error:
            raise UnexpectedReply(
                f"{self.url}: /show/table describes its tables in a way unknown: {error}"
            ) from error
        return found

    def create_type(self, table_type: TableType, *, label: str = "") -> str:
        """Register a table type and return its id."""
        reply = self.call(
            "/create/type",
            type_definition=table_type.definition,
            label=label,
            properties=table_type.properties,
        )
        return str(reply["type_id"])

    def create_table(self, table: str, type_id: str, *, options: Mapping[str, str] | None = None) -> None:
        """Create a table of a registered type. Raises :class:`RequestRefused` if it exists."""
        self.call("/create/table", table_name=table, type_id=type_id, options=dict(options or {}))

    def alter_table(
        self, table: str, action: str, value: str = "", *, options: Mapping[str, str] | None = None
    ) -> str:
        """Alter a table (``add_column``, ``rename_table``, ...) and return its new type id."""
        reply = self._call_on_table(
            "/alter/table", table, action=action, value=value, options=dict(options or {})
        )
        return str(reply["type_id"])

    def clear_table(self, table: str, *, missing_ok: bool = False) -> None:
        """Drop a table. Raises :class:`TableNotFound` unless `missing_ok`."""
        options = {"no_error_if_not_exists": "true"} if missing_ok else {}
        self._call_on_table("/clear/table", table, options=options)

    # ---- records

    def insert_records(
        self, table: str, records: Sequence[bytes], *, options: Mapping[str, str] | None = None
    ) -> InsertCounts:
        """Insert records, each the complete bare Avro of one row, in one request."""
        reply = self._call_on_table(
            "/insert/records",
            table,
            list=list(records),
            list_encoding="binary",
            options=dict(options or {}),
        )
        return InsertCounts(reply["count_inserted"], reply["count_updated"])

    def get_records(
        self,
        table: str,
        *,
        expression: str | None = None,
        sort_by: str | None = None,
        descending: bool = False,
        offset: int = 0,
        limit: int = wire.END_OF_SET,
    ) -> RecordPage:
        """Read records from `offset`, those that match `expression`, in the order of column `sort_by`.

        The server caps a page whatever `limit` says: go on at ``offset + len(records)`` while `has_more`.
        """
        options = {
            key: value
            for key, value in (
                ("expression", expression),
                ("sort_by", sort_by),
                ("sort_order", "descending" if descending else None),
            )
            if value is not None
        }
        reply = self._call_on_table(
            "/get/records", table, offset=offset, limit=limit, encoding="binary", options=options
        )
        return RecordPage(
            reply["records_binary"],
            reply["type_name"],
            reply["type_schema"],
            reply["total_number_of_records"],
            reply["has_more_records"],
        )

    def delete_records(self, table: str, expressions: Sequence[str] = (), *, delete_all: bool = False) -> int:
        """Delete the rows that match any of `expressions`, or all rows, and return how many they were."""
        if bool(expressions) == delete_all:
            raise ValueError("delete_records takes either expressions or delete_all=True")
        options = {"delete_all_records": "true"} if delete_all else {}
        reply = self._call_on_table("/delete/records", table, expressions=list(expressions), options=options)
        return int(reply["count_deleted"])

    def update_records(
        self, table: str, expressions: Sequence[str], new_values: Sequence[Mapping[str, str | None]]
    ) -> int:
        """Set the columns of ``new_values[i]`` (as text, None for null) where ``expressions[i]`` holds.

        Returns how many rows were updated.
        """
        if len(expressions) != len(new_values):
            raise ValueError(f"{len(expressions)} expressions for {len(new_values)} maps of new values")
        reply = self._call_on_table(
            "/update/records",
            table,
            expressions=list(expressions),
            new_values_maps=[dict(values) for values in new_values],
            record_encoding="binary",
        )
        return int(reply["count_updated"])

    # ---- table monitors

    def create_table_monitor(self, table: str, event: str) -> MonitorInfo:
        """Have the server publish one kind of event of a table: ``insert``, ``update`` or ``delete``.

        It publishes until :meth:`clear_table_monitor`, whether or not anybody listens.
        """
        reply = self._call_on_table("/create/tablemonitor", table, options={"event": event})
        if not reply["topic_id"]:
            raise UnexpectedReply(f"{self.url}: /create/tablemonitor gave no topic id for {table}")
        return MonitorInfo(reply["topic_id"], reply["type_schema"])

    def clear_table_monitor(self, topic_id: str) -> None:
        """End a table monitor. Raises :class:`RequestRefused` if there is none with this topic."""
        self.call("/clear/tablemonitor", topic_id=topic_id)

    def show_table_monitors(self) -> list[TableMonitor]:
        """All table monitors of the server."""
        reply = self.call("/show/tablemonitors")
        columns = (reply["monitor_ids"], reply["table_names"], reply["events"])
        return [TableMonitor(*row) for row in zip(*columns, strict=False)]
