"""``panoply.errors.exceptions`` of the SDK."""

from __future__ import annotations

from protocols.panoply.source_errors import (
    DataSourceException,
    IncorrectParamError,
    PanoplyException,
    TokenValidationException,
)

__all__ = ["DataSourceException", "IncorrectParamError", "PanoplyException", "TokenValidationException"]
