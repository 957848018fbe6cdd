"""``v3io.aio.dataplane`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.aio import Client
from protocols.v3io.official.response import RaiseForStatus
from tablecast.v3io.aio.dataplane import client, kv_cursor

__all__ = ["Client", "RaiseForStatus", "client", "kv_cursor"]
