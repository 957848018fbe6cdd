"""The HTTP face of the server: requests to the handlers, what they raise to replies."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from protocols.v3io import wire
from protocols.v3io.server import items, listing, objects, streams
from protocols.v3io.server.errors import Refused, invalid
from protocols.v3io.server.messages import Body, Reply, Work, error_reply
from protocols.v3io.server.store import Names, Store
from protocols.v3io.server.worker import Worker

logger = logging.getLogger(__name__)

#: Seconds that a client may take to send its body.
IO_TIMEOUT = 60.0
#: Bodies in memory at a time, as a multiple of the largest allowed; what is beyond is told to come again.
PENDING_BODIES = 2
#: Most bytes of a path with its query.
MAX_PATH_BYTES = 64 * 1024

_FUNCTIONS: dict[str, Callable[[Store, Names, Body], Reply | Work]] = {
    "PutItem": items.put_item,
    "UpdateItem": items.update_item,
    "GetItem": items.get_item,
    "GetItems": items.get_items,
    "CreateStream": streams.create_stream,
    "UpdateStream": streams.update_stream,
    "DescribeStream": streams.describe_stream,
    "PutRecords": streams.put_records,
    "SeekShard": streams.seek_shard,
    "Seek": streams.seek_shard,
    "GetRecords": streams.get_records,
}

#: What no path may hold: characters that a listing, being XML, cannot show.
_UNLISTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class Api:
    """The handler of all requests."""

    def __init__(self, worker: Worker, access_key: str | None, max_body_bytes: int) -> None:
        self._worker = worker
        self._access_key = None if access_key is None else access_key.encode()
        self._max_body_bytes = max_body_bytes
        self._pending_bytes = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            reply = await self._answer(request)
        except Refused as refusal:
            reply = error_reply(refusal)
        except ConnectionError:  # the client is gone, nobody reads the reply
            return web.Response(status=400)
        except sqlite3.Error as error:
            reply = error_reply(
                Refused(503, wire.UNAVAILABLE, f"nothing was stored ({error}): send the request again")
            )
        except Exception:
            logger.exception("V3IO server: %s %s failed", request.method, request.rel_url.raw_path)
            reply = error_reply(Refused(500, wire.UNAVAILABLE, "internal error, see the server's log"))
        headers = dict(reply.headers)
        if reply.body:
            headers["Content-Type"] = reply.content_type
        return web.Response(status=reply.status, body=reply.body, headers=headers)

    async def _answer(self, request: web.BaseRequest) -> Reply:
        self._authorize(request)
        path, is_directory, query = _parse_target(request.raw_path)
        body = bytearray()
        try:
            async with asyncio.timeout(IO_TIMEOUT):
                await self._read_body(request, body)
            reply: Reply | Work = self._work(request, path, is_directory, query, bytes(body))
            while not isinstance(reply, Reply):
                reply = await self._worker.run(reply)
            return reply
        except TimeoutError:
            raise Refused(408, wire.UNAVAILABLE, f"no complete request within {IO_TIMEOUT:g} s") from None
        finally:
            self._pending_bytes -= len(body)

    def _work(
        self, request: web.BaseRequest, path: Names, is_directory: bool, query: dict[str, str], body: bytes
    ) -> Work:
        """What the request asks of the store."""
        method = request.method
        range_header = request.headers.get("Range")
        function = request.headers.get(wire.FUNCTION_HEADER)
        if method == "GET" and not path:
            return listing.list_containers
        if not path:
            raise Refused(405, wire.NOT_PERMITTED, f"{method} needs a path in a container", Allow="GET")
        if method in ("PUT", "POST"):
            if function is not None:
                return _function_work(function, path, body)
            if len(path) < 2:
                raise Refused(403, wire.NOT_PERMITTED, "Operation not permitted")
            if is_directory and not body:
                return partial(objects.make_directory, path=path)
            return partial(
                objects.put_object,
                path=path,
                data=body,
                range_header=range_header,
                max_bytes=self._max_body_bytes,
            )
        if method == "GET":
            if len(path) == 1 or is_directory:
                inside = tuple(name for name in query.get("prefix", "").split("/") if name)
                return partial(listing.list_directory, path=(*path, *inside), query=query)
            return partial(objects.get_object, path=path, range_header=range_header)
        if method == "HEAD":
            return partial(objects.head_object, path=path)
        if method == "DELETE":
            return partial(objects.delete, path=path)
        allowed = "GET, HEAD, PUT, POST, DELETE"
        raise Refused(405, wire.NOT_PERMITTED, f"{method} is none of {allowed}", Allow=allowed)

    def _authorize(self, request: web.BaseRequest) -> None:
        if self._access_key is None:
            return
        given = _given_key(request)
        if given is None:
            raise Refused(401, wire.PERMISSION_DENIED, f"Permission denied: send {wire.SESSION_HEADER}")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._access_key):
            raise Refused(403, wire.PERMISSION_DENIED, "Permission denied: the access key is wrong")

    async def _read_body(self, request: web.BaseRequest, body: bytearray) -> None:
        most = self._max_body_bytes
        too_large = Refused(
            413, wire.FILE_TOO_LARGE, f"the body has more than {most} bytes: send less at a time"
        )
        if (request.content_length or 0) > most:
            raise too_large
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        while part := await request.content.readany():
            body += part
            self._pending_bytes += len(part)
            if len(body) > most:
                raise too_large
            if self._pending_bytes > PENDING_BODIES * most:
                raise Refused(
                    503, wire.UNAVAILABLE, "too much is waiting: send again", **{"Retry-After": "1"}
                )


def _function_work(function: str, path: Names, body: bytes) -> Work:
    handler = _FUNCTIONS.get(function)
    if handler is None:
        raise invalid(f"there is no function {function!r:.80}")
    if function == "PutRecords" and len(body) > wire.MAX_RECORDS_BYTES:
        raise invalid(f"the records have more than {wire.MAX_RECORDS_BYTES} bytes: send fewer at a time")
    try:
        fields: Any = orjson.loads(body) if body else {}
    except ValueError:
        raise invalid("the body must be JSON") from None
    if not isinstance(fields, dict):
        raise invalid("the body must be a JSON object")

    def work(store: Store) -> Reply | Work:
        try:
            return handler(store, path, fields)
        except ValueError as error:
            raise invalid(str(error)) from None

    return work


def _parse_target(raw_path: str) -> tuple[Names, bool, dict[str, str]]:
    """The names of a request's path, whether it ends in a slash, and the query; slashes may be repeated."""
    raw, _, raw_query = raw_path.partition("?")
    try:
        path = unquote(raw, errors="strict")
        query = dict(parse_qsl(raw_query, keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError:
        raise invalid("the path must be percent-encoded UTF-8") from None
    if _UNLISTABLE.search(path):
        raise invalid("a path cannot hold control characters")
    return tuple(name for name in path.split("/") if name), path.endswith("/"), query


def _given_key(request: web.BaseRequest) -> str | None:
    """The access key that the request carries, in V3IO's header or the forms of AWS."""
    key = request.headers.get(wire.SESSION_HEADER)
    if key is not None:
        return key
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme == "AWS":
        return rest.partition(":")[0]
    match = re.search(r"Credential=([^/,]+)", rest)
    return match[1] if scheme.startswith("AWS4-") and match else None
