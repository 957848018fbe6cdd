"""Kinetica's HTTP wire format: request and response records, and the envelope around responses.

Shared by the client and the embedded server. Every call is ``POST <base><endpoint>`` with an Avro binary (or
JSON) record as its body; every reply is the envelope record ``gpudb_response`` whose ``data`` holds the reply
record. Records carry no header and no schema, so both sides must know the fields and their order: they stand in
:data:`ENDPOINTS`, in a compact notation that :func:`parse_record` turns into Avro schemas.

Not here: the column types of tables (``types.py``), sockets (``client.py``, ``server``).

Source of the format: the public request and response schemas of Kinetica 7.2.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro

#: Default ports of a Kinetica server: HTTP control plane, and the ZeroMQ table-monitor publisher.
DEFAULT_HTTP_PORT = 9191
DEFAULT_MONITOR_PORT = 9002

#: The exact body of ``GET <base-url>``.
PING_REPLY = "Kinetica is running!"

#: Reply header that carries the seconds a request took; the official client fails without it.
TIME_HEADER = "x-request-time-secs"

BINARY = "application/octet-stream"
JSON = "application/json"
SNAPPY = "application/x-snappy"

#: ``limit`` of the get endpoints that means "to the end".
END_OF_SET = -9999

#: What a table monitor of updates or deletes publishes: one record with the number of rows.
COUNT_SCHEMA = '{"type":"record","name":"type_name","fields":[{"name":"count","type":"long"}]}'

# Notation: `field type, ...`; `[T]` array of T, `{T}` map of string to T, `(T|null)` optional T.
_RECORDS = """
- gpudb_response: status string, message string, data_type string, data bytes, data_str string
/show/system/properties
  > show_system_properties_request: options {string}
  < show_system_properties_response: property_map {string}, info {string}
/show/system/status
  > show_system_status_request: options {string}
  < show_system_status_response: status_map {string}, info {string}
/create/type
  > create_type_request: type_definition string, label string, properties {[string]}, options {string}
  < create_type_response: type_id string, type_definition string, label string, properties {[string]}, info {string}
/show/types
  > show_types_request: type_id string, label string, options {string}
  < show_types_response: type_ids [string], type_schemas [string], labels [string], properties [{[string]}], info {string}
/has/type
  > has_type_request: type_id string, options {string}
  < has_type_response: type_id string, type_exists boolean, info {string}
/create/schema
  > create_schema_request: schema_name string, options {string}
  < create_schema_response: schema_name string, info {string}
/has/schema
  > has_schema_request: schema_name string, options {string}
  < has_schema_response: schema_name string, schema_exists boolean, info {string}
/drop/schema
  > drop_schema_request: schema_name string, options {string}
  < drop_schema_response: schema_name string, info {string}
/create/table
  > create_table_request: table_name string, type_id string, options {string}
  < create_table_response: table_name string, type_id string, is_collection boolean, info {string}
/has/table
  > has_table_request: table_name string, options {string}
  < has_table_response: table_name string, table_exists boolean, info {string}
/show/table
  > show_table_request: table_name string, options {string}
  < show_table_response: table_name string, table_names [string], table_descriptions [[string]], type_ids [string], type_schemas [string], type_labels [string], properties [{[string]}], additional_info [{string}], sizes [long], full_sizes [long], join_sizes [double], total_size long, total_full_size long, info {string}
/alter/table
  > alter_table_request: table_name string, action string, value string, options {string}
  < alter_table_response: table_name string, action string, value string, type_id string, type_definition string, properties {[string]}, label string, info {string}
/clear/table
  > clear_table_request: table_name string, authorization string, options {string}
  < clear_table_response: table_name string, info {string}
/clear/tables
  > clear_tables_request: table_names [string], options {string}
  < clear_tables_response: tables {string}, info {string}
/insert/records
  > insert_records_request: table_name string, list [bytes], list_str [string], list_encoding string, options {string}
  < insert_records_response: record_ids [string], count_inserted int, count_updated int, info {string}
/get/records
  > get_records_request: table_name string, offset long, limit long, encoding string, options {string}
  < get_records_response: table_name string, type_name string, type_schema string, records_binary [bytes], records_json [string], total_number_of_records long, has_more_records boolean, info {string}
/get/records/bycolumn
  > get_records_by_column_request: table_name string, column_names [string], offset long, limit long, encoding string, options {string}
  < get_records_by_column_response: table_name string, response_schema_str string, binary_encoded_response bytes, json_encoded_response string, total_number_of_records long, has_more_records boolean, info {string}
/get/records/fromcollection
  > get_records_from_collection_request: table_name string, offset long, limit long, encoding string, options {string}
  < get_records_from_collection_response: table_name string, type_names [string], records_binary [bytes], records_json [string], record_ids [string], info {string}
/delete/records
  > delete_records_request: table_name string, expressions [string], options {string}
  < delete_records_response: count_deleted long, counts_deleted [long], info {string}
/update/records
  > update_records_request: table_name string, expressions [string], new_values_maps [{(string|null)}], records_to_insert [bytes], records_to_insert_str [string], record_encoding string, options {string}
  < update_records_response: count_updated long, counts_updated [long], count_inserted long, counts_inserted [long], info {string}
/create/tablemonitor
  > create_table_monitor_request: table_name string, options {string}
  < create_table_monitor_response: topic_id string, table_name string, type_schema string, info {string}
/clear/tablemonitor
  > clear_table_monitor_request: topic_id string, options {string}
  < clear_table_monitor_response: topic_id string, info {string}
/show/tablemonitors
  > show_table_monitors_request: monitor_ids [string], options {string}
  < show_table_monitors_response: monitor_ids [string], table_names [string], events [string], increasing_columns [string], filter_expressions [string], join_table_names [string], join_column_names [string], join_expressions [string], refresh_method [string], refresh_period [string], refresh_start_time [string], datasink_names [string], max_consecutive_failures [int], failed_notifications_table_names [string], statuses [string], additional_info [{string}], info {string}
/alter/tablemonitor
  > alter_table_monitor_request: topic_id string, monitor_updates_map {string}, options {string}
  < alter_table_monitor_response: topic_id string, info {string}
/execute/sql
  > execute_sql_request: statement string, offset long, limit long, encoding string, request_schema_str string, data [bytes], options {string}
  < execute_sql_response: count_affected long, response_schema_str string, binary_encoded_response bytes, json_encoded_response string, total_number_of_records long, has_more_records boolean, paging_table string, info {string}
"""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its path, and the Avro schemas of its request and response records."""

    path: str
    request: dict[str, Any]
    response: dict[str, Any]

    @property
    def request_name(self) -> str:
        return str(self.request["name"])

    @property
    def response_name(self) -> str:
        """The envelope's ``data_type`` of a good reply, for example ``show_table_response``."""
        return str(self.response["name"])


def _parse_type(text: str) -> Any:
    if text.startswith("["):
        return {"type": "array", "items": _parse_type(text[1:-1])}
    if text.startswith("{"):
        return {"type": "map", "values": _parse_type(text[1:-1])}
    if text.startswith("("):
        return [_parse_type(part) for part in text[1:-1].split("|")]
    return text


def parse_record(line: str) -> dict[str, Any]:
    """Turn ``name: field type, field type`` into an Avro record schema (a dict)."""
    name, _, fields = line.partition(":")
    parsed = []
    for field in filter(None, (part.strip() for part in fields.split(","))):
        field_name, _, field_type = field.partition(" ")
        parsed.append({"name": field_name, "type": _parse_type(field_type)})
    return {"type": "record", "name": name.strip(), "fields": parsed}


def _parse_endpoints(text: str) -> tuple[dict[str, Any], dict[str, Endpoint]]:
    envelope: dict[str, Any] = {}
    endpoints: dict[str, Endpoint] = {}
    path, request = "", {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("/"):
            path = line
        elif line.startswith(">"):
            request = parse_record(line[1:])
        elif line.startswith("<"):
            endpoints[path] = Endpoint(path, request, parse_record(line[1:]))
        else:
            envelope = parse_record(line.removeprefix("-"))
    return envelope, endpoints


ENVELOPE, ENDPOINTS = _parse_endpoints(_RECORDS)


@cache
def _parsed(schema_json: str) -> Any:
    return fastavro.parse_schema(json.loads(schema_json))


def _schema(schema: dict[str, Any]) -> Any:
    return _parsed(json.dumps(schema))


def encode(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    """Encode `record` as bare Avro binary. Raises ``ValueError``, ``TypeError`` or ``KeyError`` if it does not fit."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _schema(schema), record, strict=True)
    return out.getvalue()


def decode(schema: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Decode bare Avro binary; bytes after the record are ignored, as the official client does.

    Raises ``ValueError`` (one line) for anything that is not a record of `schema`.
    """
    try:
        record = fastavro.schemaless_reader(io.BytesIO(data), _schema(schema), None)
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, OverflowError, ...
        raise ValueError(f"not a {schema['name']} record: {type(error).__name__}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"not a {schema['name']} record")
    return record


@dataclass(frozen=True)
class Reply:
    """A decoded envelope. `data` is None for an error, else the response record."""

    ok: bool
    message: str
    data_type: str
    data: dict[str, Any] | None


def encode_ok(endpoint: Endpoint, record: dict[str, Any], content_type: str) -> bytes:
    """The envelope of a good reply, in Avro binary or (for ``application/json``) pure-ASCII JSON."""
    if content_type == JSON:
        # The official client maps bytes to characters one by one, so nothing above ASCII may appear.
        text = json.dumps(record, ensure_ascii=True, default=_bytes_as_text)
        return _json_envelope("OK", "", endpoint.response_name, text)
    data = encode(endpoint.response, record)
    return encode(
        ENVELOPE,
        {"status": "OK", "message": "", "data_type": endpoint.response_name, "data": data, "data_str": ""},
    )


def encode_error(message: str, content_type: str) -> bytes:
    """The envelope of an error. ``data_type`` is the word ``none``, which clients test for."""
    if content_type == JSON:
        return _json_envelope("ERROR", message, "none", "")
    return encode(
        ENVELOPE, {"status": "ERROR", "message": message, "data_type": "none", "data": b"", "data_str": ""}
    )


def decode_reply(endpoint: Endpoint, body: bytes) -> Reply:
    """Decode a binary envelope and the record in it. Raises ``ValueError`` if it is neither."""
    outer = decode(ENVELOPE, body)
    ok = outer["status"] == "OK"
    record = decode(endpoint.response, outer["data"]) if ok and outer["data_type"] != "none" else None
    return Reply(ok, outer["message"], outer["data_type"], record)


def _json_envelope(status: str, message: str, data_type: str, data_str: str) -> bytes:
    envelope = {
        "status": status,
        "message": message,
        "data_type": data_type,
        "data": "",
        "data_str": data_str,
    }
    return json.dumps(envelope, ensure_ascii=True).encode("ascii")


def _bytes_as_text(value: object) -> str:
    """JSON carries ``bytes`` as one character U+0000..U+00FF per byte."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"{type(value).__name__} has no JSON form")


_FAILOVER_PHRASES = re.compile(
    "Kinetica is exiting|Connection refused|Connection reset|system-limited-fatal|Kinetica is offline"
    "|Query planner is not running|System shutting down|Unavailable: Draining HA queue"
)


def is_failover_message(message: str) -> bool:
    """Whether an error text tells clients of an HA ring to try the next cluster."""
    return _FAILOVER_PHRASES.search(message) is not None
