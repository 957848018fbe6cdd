"""The change feed of database tables as reliable event streams, on Ray: what users import."""

from __future__ import annotations

from actors.callbacks.callback import Callback
from actors.callbacks.errors import MonitorError
from actors.callbacks.monitor import TableMonitor
from actors.callbacks.options import Options as MonitorOptions
from actors.writer.puts import EventWriter
from cluster.puts import writer
from protocols.accumulator import BufferFull, Limits, RecordTooLarge
from protocols.batching import Closed, DeliveryEvent, NotDelivered, RecordsRejected, Rejection
from protocols.kronos.client import KronosClient
from protocols.kronos.wire import ID_FIELD, TIMESTAMP_FIELD, ResultOrder
from protocols.puts import InvalidEvent

__all__ = [
    "ID_FIELD",
    "TIMESTAMP_FIELD",
    "BufferFull",
    "Callback",
    "Closed",
    "DeliveryEvent",
    "EventWriter",
    "InvalidEvent",
    "KronosClient",
    "Limits",
    "MonitorError",
    "MonitorOptions",
    "NotDelivered",
    "RecordTooLarge",
    "RecordsRejected",
    "Rejection",
    "ResultOrder",
    "TableMonitor",
    "writer",
]
