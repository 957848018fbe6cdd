"""An event store that speaks Kronos' HTTP protocol, embedded in a process."""

from __future__ import annotations

from protocols.kronos.server.event_store import EventStore

__all__ = ["EventStore"]
