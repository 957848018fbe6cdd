"""``panoply.records`` of the SDK."""

from __future__ import annotations

from protocols.panoply.records import (
    Metadata,
    Record,
    RecordGroup,
    get_iso_string,
    normalize_data,
    to_record,
    validate_resource,
)

__all__ = [
    "Metadata",
    "Record",
    "RecordGroup",
    "get_iso_string",
    "normalize_data",
    "to_record",
    "validate_resource",
]
