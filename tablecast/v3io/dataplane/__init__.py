"""``v3io.dataplane`` of the official package: ``Client``, ``RaiseForStatus``, and the modules beside them."""

from __future__ import annotations

from protocols.v3io.official.client import Client
from protocols.v3io.official.response import RaiseForStatus
from tablecast.v3io.dataplane import batch, client, kv_cursor, output, response, transport

__all__ = [
    "Client",
    "RaiseForStatus",
    "batch",
    "client",
    "kv_cursor",
    "output",
    "response",
    "transport",
]
