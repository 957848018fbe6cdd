"""The names of ``pykronos``, so that moving here is a changed import line; and what is new."""

from __future__ import annotations

from protocols.accumulator import BatchingError, BufferFull, Limits, RecordTooLarge
from protocols.batching import Closed, DeliveryEvent, NotDelivered, RecordsRejected, Rejection
from protocols.kronos.client import KronosClient
from protocols.kronos.errors import (
    BadReply,
    ConnectionFailed,
    EventsRefused,
    KronosError,
    RequestRefused,
    RequestTimedOut,
    ServerUnavailable,
    TerminalError,
    TransientError,
)
from protocols.kronos.errors import KronosError as KronosClientError
from protocols.kronos.outbox import Queued
from protocols.kronos.times import (
    datetime_to_epoch_time,
    datetime_to_kronos_time,
    epoch_time_to_kronos_time,
    kronos_time_now,
    kronos_time_to_datetime,
    kronos_time_to_epoch_time,
    timedelta_to_kronos_time,
    to_kronos_time,
)
from protocols.kronos.wire import (
    ID_FIELD,
    LIBRARY_FIELD,
    MAX_TIME,
    MIN_TIME,
    SUCCESS_FIELD,
    TIMESTAMP_FIELD,
    ResultOrder,
)
from protocols.puts import InvalidEvent

__all__ = [
    "ID_FIELD",
    "LIBRARY_FIELD",
    "MAX_TIME",
    "MIN_TIME",
    "SUCCESS_FIELD",
    "TIMESTAMP_FIELD",
    "BadReply",
    "BatchingError",
    "BufferFull",
    "Closed",
    "ConnectionFailed",
    "DeliveryEvent",
    "EventsRefused",
    "InvalidEvent",
    "KronosClient",
    "KronosClientError",
    "KronosError",
    "Limits",
    "NotDelivered",
    "Queued",
    "RecordTooLarge",
    "RecordsRejected",
    "Rejection",
    "RequestRefused",
    "RequestTimedOut",
    "ResultOrder",
    "ServerUnavailable",
    "TerminalError",
    "TransientError",
    "datetime_to_epoch_time",
    "datetime_to_kronos_time",
    "epoch_time_to_kronos_time",
    "kronos_time_now",
    "kronos_time_to_datetime",
    "kronos_time_to_epoch_time",
    "timedelta_to_kronos_time",
    "to_kronos_time",
]
