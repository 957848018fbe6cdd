"""``panoply.errors`` of the SDK."""

from __future__ import annotations

from protocols.panoply.source_errors import (
    CODES,
    DataSourceException,
    IncorrectParamError,
    PanoplyException,
    Phase,
    TokenValidationException,
    set_internal_code,
    wrap_errors,
)

__all__ = [
    "CODES",
    "DataSourceException",
    "IncorrectParamError",
    "PanoplyException",
    "Phase",
    "TokenValidationException",
    "set_internal_code",
    "wrap_errors",
]
