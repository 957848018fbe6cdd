"""``panoply.datasource`` of the SDK."""

from __future__ import annotations

from protocols.panoply.datasource import DataSource, background_progress, validate_token

__all__ = ["DataSource", "background_progress", "validate_token"]
