"""The asyncio client: ``tablecast.v3io.aio.Client``, also as ``v3io.aio.dataplane.Client`` like the official one."""

from __future__ import annotations

from protocols.v3io.official.aio import Client
from protocols.v3io.official.cursor import AsyncCursor
from protocols.v3io.official.response import RaiseForStatus
from tablecast.v3io.aio import dataplane

__all__ = ["AsyncCursor", "Client", "RaiseForStatus", "dataplane"]
