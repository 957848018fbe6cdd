"""Containers, and what is in their directories, as XML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from protocols.v3io.server.errors import invalid, no_such_file
from protocols.v3io.server.messages import Reply
from protocols.v3io.server.store import DIRECTORY, OBJECT, STREAM, Entry, Names, Store

#: Most entries in a reply.
MAX_KEYS = 1000

_XML = "application/xml"
_HEADER = '<?xml version="1.0" encoding="UTF-8"?>'


def list_containers(store: Store) -> Reply:
    buckets = [
        _element("Bucket", _fields({"Name": e.name, "CreationDate": _time(e.created), "Id": str(e.id)}))
        for e in store.children(0, limit=MAX_KEYS)
    ]
    body = _element("ListAllMyBucketsResult", _element("Buckets", "".join(buckets)))
    return Reply(200, (_HEADER + body).encode(), {}, _XML)


def list_directory(store: Store, path: Names, query: Mapping[str, str]) -> Reply:
    """The entries of a directory in the order of their names; the query's marker is the last one known."""
    with_info = query.get("prefix-info", "0") not in ("", "0", "false")
    only_directories = query.get("prefix-only", "0") not in ("", "0", "false")
    marker = query.get("marker", "")
    max_keys = query.get("max-keys", str(MAX_KEYS))
    if not (max_keys.isascii() and max_keys.isdecimal() and 0 < len(max_keys) < 10 and int(max_keys)):
        raise invalid(f"max-keys must be a number above 0, not {max_keys!r:.80}")
    directory = store.get(path)
    if directory.kind == OBJECT:
        raise no_such_file()
    limit = min(int(max_keys), MAX_KEYS)
    kinds = (DIRECTORY, STREAM) if only_directories else (OBJECT, DIRECTORY, STREAM)
    after = marker.rstrip("/").rpartition("/")[2]
    entries = store.children(directory.id, after=after, kinds=kinds, limit=limit + 1)
    listed = entries[:limit]
    prefix = "".join(name + "/" for name in path[1:])
    head = {
        "Name": path[0],
        "Prefix": prefix.rstrip("/"),
        "Marker": marker,
        "Delimiter": "/",
        "NextMarker": prefix + listed[-1].name if listed else "",
        "MaxKeys": str(limit),
        "IsTruncated": "true" if len(entries) > limit else "false",
    }
    body = _fields(head) + "".join(_entry(entry, prefix, with_info) for entry in listed)
    return Reply(200, (_HEADER + _element("ListBucketResult", body)).encode(), {}, _XML)


def _entry(entry: Entry, prefix: str, with_info: bool) -> str:
    is_object = entry.kind == OBJECT
    if is_object:
        fields = {"Key": prefix + entry.name, "Size": str(entry.size), "LastSequenceId": "0"}
    else:
        fields = {"Prefix": prefix + entry.name + "/"}
    fields["LastModified"] = _time(entry.modified)
    if with_info:
        fields |= {
            "AccessTime": _time(entry.modified),
            "CreatingTime": _time(entry.created),
            "Mode": "0100664" if is_object else "040775",
            "GID": "0",
            "UID": "0",
            "InodeNumber": str(entry.id),
        }
        if entry.kind == STREAM:
            fields["ShardCount"] = str(entry.shard_count)
            fields["RetentionPeriodHours"] = str(entry.retention_hours)
    return _element("Contents" if is_object else "CommonPrefixes", _fields(fields))


def _fields(fields: Mapping[str, str]) -> str:
    # A carriage return would be read back as a line feed.
    return "".join(_element(name, escape(text, {"\r": "&#13;"})) for name, text in fields.items())


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>"


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9 // 10**6:03d}Z"
