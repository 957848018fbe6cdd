"""``panoply.resources`` of the SDK."""

from __future__ import annotations

from protocols.panoply.records import Field, Resource

__all__ = ["Field", "Resource"]
