"""Panoply's SDK under its names: the writer, and what data sources are made of; its modules as well."""

from __future__ import annotations

from protocols.panoply.datasource import DataSource, background_progress, validate_token
from protocols.panoply.emitter import Emitter
from protocols.panoply.errors import MessageRefused, PanoplyError, TransientError, WriteFailed
from protocols.panoply.records import (
    Field,
    Metadata,
    Record,
    RecordGroup,
    Resource,
    convert_to_ui_format,
    get_iso_string,
    normalize_data,
    to_record,
    validate_resource,
)
from protocols.panoply.sdk import FLUSH_TIMEOUT, MAXSIZE, SDK, Answer, Request
from protocols.panoply.source_errors import (
    DataSourceException,
    IncorrectParamError,
    PanoplyException,
    Phase,
    TokenValidationException,
    set_internal_code,
    wrap_errors,
)
from protocols.panoply.ssh import SSHTunnel
from tablecast.panoply import datasource, errors, events, records, resources, sdk, ssh

__all__ = [
    "FLUSH_TIMEOUT",
    "MAXSIZE",
    "SDK",
    "Answer",
    "DataSource",
    "DataSourceException",
    "Emitter",
    "Field",
    "IncorrectParamError",
    "MessageRefused",
    "Metadata",
    "PanoplyError",
    "PanoplyException",
    "Phase",
    "Record",
    "RecordGroup",
    "Request",
    "Resource",
    "SSHTunnel",
    "TokenValidationException",
    "TransientError",
    "WriteFailed",
    "background_progress",
    "convert_to_ui_format",
    "datasource",
    "errors",
    "events",
    "get_iso_string",
    "normalize_data",
    "records",
    "resources",
    "sdk",
    "set_internal_code",
    "ssh",
    "to_record",
    "validate_resource",
    "validate_token",
    "wrap_errors",
]
