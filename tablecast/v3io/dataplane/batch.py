"""``v3io.dataplane.batch`` of the official package."""

from __future__ import annotations

from protocols.v3io.official.batch import Batch

__all__ = ["Batch"]
