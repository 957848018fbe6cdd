"""``panoply.errors.error_normalization`` of the SDK."""

from __future__ import annotations

from protocols.panoply.source_errors import (
    Phase,
    set_internal_code,
    wrap_errors,
)

__all__ = ["Phase", "set_internal_code", "wrap_errors"]
