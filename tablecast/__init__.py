"""The change feed of database tables as reliable event streams, on Ray: what users import."""

from __future__ import annotations

from actors.callbacks.callback import Callback
from actors.callbacks.errors import MonitorError
from actors.callbacks.monitor import TableMonitor
from actors.callbacks.options import Options as MonitorOptions
from actors.writer.puts import EventWriter, InvalidEvent
from cluster.puts import writer
from protocols.accumulator import BufferFull, Limits, RecordTooLarge
from protocols.batching import Closed, DeliveryEvent, NotDelivered, RecordsRejected, Rejection

__all__ = [
    "BufferFull",
    "Callback",
    "Closed",
    "DeliveryEvent",
    "EventWriter",
    "InvalidEvent",
    "Limits",
    "MonitorError",
    "MonitorOptions",
    "NotDelivered",
    "RecordTooLarge",
    "RecordsRejected",
    "Rejection",
    "TableMonitor",
    "writer",
]
