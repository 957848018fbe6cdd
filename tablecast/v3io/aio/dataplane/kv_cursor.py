"""``v3io.aio.dataplane.kv_cursor`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.cursor import AsyncCursor as Cursor

__all__ = ["Cursor"]
