"""``panoply.events`` of the SDK."""

from __future__ import annotations

from protocols.panoply.emitter import Emitter

__all__ = ["Emitter"]
