"""Objects and directories: put, append, get, head, delete."""

from __future__ import annotations

import re

from protocols.v3io import wire
from protocols.v3io.server.errors import Refused, invalid, is_a_directory
from protocols.v3io.server.messages import Reply, modification_headers
from protocols.v3io.server.store import OBJECT, Names, Store

BINARY = "application/octet-stream"

#: Offset alone ("bytes=4") is what the official client sends for the rest of an object.
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})(?:-([0-9]{1,18})?)?|-([0-9]{1,18}))")
#: The range of a put that appends.
_APPEND = "-1"


def put_object(store: Store, path: Names, data: bytes, range_header: str | None, max_bytes: int) -> Reply:
    """Write or append; an object never grows beyond `max_bytes`."""
    if range_header not in (None, _APPEND):
        raise invalid(f"the Range of a put can only be {_APPEND}, which appends")
    append = range_header is not None
    entry = store.object(path)
    if append and entry.size + len(data) > max_bytes:
        raise Refused(400, wire.FILE_TOO_LARGE, f"File too large: an object can have {max_bytes} bytes")
    store.write(entry, data, append=append)
    return Reply(200)


def make_directory(store: Store, path: Names) -> Reply:
    store.directory(path)
    return Reply(200)


def get_object(store: Store, path: Names, range_header: str | None) -> Reply:
    entry = store.get(path)
    headers = modification_headers(entry.modified)
    if entry.kind != OBJECT or range_header is None:
        return Reply(200, store.read(entry, 0, entry.size), headers, BINARY)
    match = _RANGE.fullmatch(range_header.replace(" ", ""))
    if match is None:
        raise invalid(f"Range must look like bytes=0-9, not {range_header:.80}")
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(entry.size - int(suffix), 0), entry.size
    else:
        start, stop = int(first), min(entry.size, entry.size if last is None else int(last) + 1)
    if start >= stop:
        raise Refused(
            416,
            wire.INVALID_ARGUMENT,
            f"InvalidArgumentException: the object has {entry.size} bytes, none in {range_header:.80}",
            **{"Content-Range": f"bytes */{entry.size}"},
        )
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
    return Reply(206, store.read(entry, start, stop), headers, BINARY)


def head_object(store: Store, path: Names) -> Reply:
    entry = store.get(path)
    headers = modification_headers(entry.modified) | {"Content-Length": str(entry.size)}
    return Reply(200, b"", headers, BINARY)


def delete(store: Store, path: Names) -> Reply:
    """Delete an object, with its attributes or records, or an empty directory."""
    if len(path) < 2:
        raise is_a_directory()
    store.delete(store.get(path))
    return Reply(204)
