"""``v3io.dataplane.kv_cursor`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.cursor import Cursor

__all__ = ["Cursor"]
