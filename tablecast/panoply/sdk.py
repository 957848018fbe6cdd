"""``panoply.sdk`` of the SDK."""

from __future__ import annotations

from protocols.panoply.sdk import FLUSH_TIMEOUT, MAXSIZE, SDK

__all__ = ["FLUSH_TIMEOUT", "MAXSIZE", "SDK"]
