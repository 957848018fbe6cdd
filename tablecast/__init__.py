"""The change feed of database tables as reliable event streams, on Ray: what users import."""

from __future__ import annotations

from actors.writer.puts import EventWriter, InvalidEvent
from cluster.puts import writer
from protocols.accumulator import BufferFull, Limits, RecordTooLarge
from protocols.batching import Closed, DeliveryEvent, NotDelivered, RecordsRejected, Rejection

__all__ = [
    "BufferFull",
    "Closed",
    "DeliveryEvent",
    "EventWriter",
    "InvalidEvent",
    "Limits",
    "NotDelivered",
    "RecordTooLarge",
    "RecordsRejected",
    "Rejection",
    "writer",
]
