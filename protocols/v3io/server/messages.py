"""What the handlers of requests are given and give back, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any, NamedTuple, Union

import orjson

from protocols.v3io import wire
from protocols.v3io.server.errors import Refused, invalid
from protocols.v3io.server.store import Store

#: The decoded JSON body of a function call.
Body = Mapping[str, Any]

JSON = "application/json"


class Reply(NamedTuple):
    """An HTTP reply; `headers` come in addition to those of its body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
    content_type: str = JSON


#: Work on the store in parts: each gives the reply, or the next part, before which others get their turn.
Work = Callable[[Store], Union[Reply, "Work"]]


def json_reply(fields: Mapping[str, Any]) -> Reply:
    return Reply(200, orjson.dumps(fields))


def error_reply(error: Refused) -> Reply:
    body = orjson.dumps({"ErrorCode": error.code, "ErrorMessage": str(error)})
    return Reply(error.status, body, error.headers)


def modification_headers(modified: int) -> dict[str, str]:
    """When the object was written last (ns since 1970), also as a condition that it still holds."""
    seconds, nanoseconds = divmod(modified, 10**9)
    return {
        "Last-Modified": formatdate(seconds, usegmt=True),
        wire.VERIFIER_HEADER: f"__mtime_secs=={seconds} and __mtime_nsecs=={nanoseconds}",
    }


def text(body: Body, name: str, default: str = "") -> str:
    """A field that holds text; empty counts as missing."""
    value = body.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string, not {value!r:.80}")
    return value


def integer(body: Body, name: str, default: int | None, *, least: int, most: int = 2**63 - 1) -> int:
    """A field that holds an integer in bounds; without a default it must be there."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"{name} must be an integer from {least} to {most}, not {value!r:.80}")
    return value
