"""V3IO's data plane under the names of the official ``v3io`` package: ``from tablecast import v3io`` replaces it."""

from __future__ import annotations

from protocols.v3io.errors import (
    CertificateRejected,
    ConnectionFailed,
    HttpResponseError,
    InvalidAttribute,
    NotConnected,
    RequestTimedOut,
    V3ioError,
)
from protocols.v3io.official.batch import Batch
from protocols.v3io.official.client import Client
from protocols.v3io.official.cursor import Cursor
from protocols.v3io.official.outputs import ErrorOutput
from protocols.v3io.official.response import RaiseForStatus, Response, Responses
from tablecast.v3io import aio, dataplane

__all__ = [
    "Batch",
    "CertificateRejected",
    "Client",
    "ConnectionFailed",
    "Cursor",
    "ErrorOutput",
    "HttpResponseError",
    "InvalidAttribute",
    "NotConnected",
    "RaiseForStatus",
    "RequestTimedOut",
    "Response",
    "Responses",
    "V3ioError",
    "aio",
    "dataplane",
]
