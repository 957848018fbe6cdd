"""``v3io.dataplane.client`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.client import Client

__all__ = ["Client"]
