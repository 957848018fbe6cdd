"""``v3io.aio.dataplane.client`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.aio import Client

__all__ = ["Client"]
