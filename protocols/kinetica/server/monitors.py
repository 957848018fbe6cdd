"""Table monitors: the endpoints that make and end them, and what they publish.

Everything is published after the change is visible and before its reply. Updates and deletes publish their
count, if it is not zero; dropping and altering a table publish nothing.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from typing import Any

from protocols.kinetica import wire
from protocols.kinetica.server import options as opt
from protocols.kinetica.server.catalogue import Catalogue, Monitor
from protocols.kinetica.server.errors import RequestError
from protocols.kinetica.server.publisher import Publisher
from protocols.kinetica.server.table import Insertion, Table

Request = dict[str, Any]
Response = dict[str, Any]

_log = logging.getLogger(__name__)

_COUNT = json.loads(wire.COUNT_SCHEMA)
_UNSUPPORTED = (
    "datasink_name",
    "destination",
    "kafka_topic_name",
    "join_table_names",
    "join_column_names",
    "join_expressions",
    "failed_notifications_table_name",
)


class Monitors:
    """The monitors in `catalogue`, published by `publisher`."""

    def __init__(self, catalogue: Catalogue, publisher: Publisher) -> None:
        self._catalogue = catalogue
        self._publisher = publisher

    def inserted(self, table: Table, outcome: Insertion, frames: Sequence[bytes]) -> None:
        """Publish the new rows of a table, and how many existing ones the insert replaced."""
        monitors = self._active(table, "insert") if outcome.inserted else []
        messages = [(monitor.topic_id, self._rows(monitor, outcome, frames)) for monitor in monitors]
        self._publisher.publish([(topic, rows) for topic, rows in messages if rows])
        self.updated(table, outcome.updated)

    @staticmethod
    def _rows(monitor: Monitor, outcome: Insertion, frames: Sequence[bytes]) -> Sequence[bytes]:
        if not monitor.expression and outcome.inserted == len(frames):
            return frames
        try:
            return monitor.table.frames(monitor.expression, first_id=outcome.first)
        except RequestError as error:  # the rows are in, so it must not look as if the insert had failed
            _log.warning("monitor %s of %s misses an insert: %s", monitor.topic_id, monitor.table.name, error)
            return ()

    def updated(self, table: Table, count: int) -> None:
        """Publish the number of updated rows."""
        self._publish_count(table, "update", count)

    def deleted(self, table: Table, count: int) -> None:
        """Publish the number of deleted rows."""
        self._publish_count(table, "delete", count)

    def _publish_count(self, table: Table, event: str, count: int) -> None:
        if count:
            frame = wire.encode(_COUNT, {"count": count})
            self._publisher.publish([(m.topic_id, [frame]) for m in self._active(table, event)])

    def _active(self, table: Table, event: str) -> list[Monitor]:
        return [m for m in self._catalogue.monitors(table) if m.event == event and not m.suspended]

    def create_table_monitor(self, request: Request) -> Response:
        options = {name: text for name, text in request["options"].items() if text}
        event = opt.one_of("event", options.get("event", "insert"), ("insert", "update", "delete"))
        opt.refuse(options, _UNSUPPORTED)
        opt.one_of("refresh_method", options.get("refresh_method", "on_change"), ("on_change",))
        with self._catalogue.table(request["table_name"]) as table:
            if "increasing_column" in options:
                table.column(options["increasing_column"])
            if "expression" in options:
                if event != "insert":
                    raise RequestError("an expression filters inserts only; the other events are counts")
                table.frames(options["expression"], limit=0)
            monitor = Monitor(options.get("monitor_id", str(uuid.uuid4())), table, event, options)
            self._catalogue.add_monitor(monitor)
            schema = table.type.definition if event == "insert" else wire.COUNT_SCHEMA
        return {
            "topic_id": monitor.topic_id,
            "table_name": request["table_name"],
            "type_schema": schema,
            "info": {f"{event}_topic_id": monitor.topic_id, f"{event}_type_schema": schema},
        }

    def clear_table_monitor(self, request: Request) -> Response:
        self._catalogue.remove_monitor(request["topic_id"])
        return {"topic_id": request["topic_id"], "info": {}}

    def alter_table_monitor(self, request: Request) -> Response:
        monitor, updates = self._catalogue.monitor(request["topic_id"]), request["monitor_updates_map"]
        if list(updates) != ["notifications"]:
            raise RequestError("monitor_updates_map: only notifications (suspend or resume) is supported")
        monitor.suspended = (
            opt.one_of("notifications", updates["notifications"], ("suspend", "resume")) == "suspend"
        )
        return {"topic_id": monitor.topic_id, "info": {}}

    def show_table_monitors(self, request: Request) -> Response:
        wanted = [topic_id for topic_id in request["monitor_ids"] if topic_id]
        found = [self._catalogue.monitor(t) for t in wanted] if wanted else self._catalogue.monitors()
        blank = [""] * len(found)
        return {
            "monitor_ids": [monitor.topic_id for monitor in found],
            "table_names": [monitor.table.name for monitor in found],
            "events": [monitor.event for monitor in found],
            "increasing_columns": [monitor.options.get("increasing_column", "") for monitor in found],
            "filter_expressions": [monitor.expression for monitor in found],
            "join_table_names": blank,
            "join_column_names": blank,
            "join_expressions": blank,
            "refresh_method": ["on_change"] * len(found),
            "refresh_period": blank,
            "refresh_start_time": blank,
            "datasink_names": blank,
            "max_consecutive_failures": [-1] * len(found),
            "failed_notifications_table_names": blank,
            "statuses": ["suspended" if monitor.suspended else "running" for monitor in found],
            "additional_info": [{} for _ in found],
            "info": {},
        }
