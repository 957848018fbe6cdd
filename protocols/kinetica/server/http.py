"""The HTTP face of the table server: requests into records, records into envelopes, errors into HTTP 400.

Any answer but 200, 400 and 401 makes clients believe that the cluster is gone, so there are no others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from aiohttp import web

from protocols.kinetica import wire
from protocols.kinetica.server.errors import RequestError

_log = logging.getLogger(__name__)

#: Largest request body, in bytes.
MAX_BODY = 256 * 1024 * 1024

#: Serves one decoded request; the text is the address that the client used, without the port.
Handler = Callable[[dict[str, Any], str], dict[str, Any]]


class Frontend:
    """An aiohttp application that passes decoded requests to the handlers of their paths, on `executor`.

    With `user`, other credentials than `user` and `password` get a 401.
    """

    def __init__(
        self, routes: Mapping[str, Handler], executor: Executor, user: str | None, password: str | None
    ) -> None:
        self._routes = routes
        self._executor = executor
        self._credentials = None if user is None else f"{user}:{password or ''}".encode()
        self.app = web.Application(client_max_size=MAX_BODY)
        self.app.router.add_route("*", "/{path:.*}", self._respond)

    async def _respond(self, request: web.Request) -> web.Response:
        started = time.monotonic()
        if request.method == "GET" and request.path == "/":
            return web.Response(text=wire.PING_REPLY)
        if not self._authorized(request.headers.get("Authorization", "")):
            return web.Response(status=401, reason="Unauthorized")
        accept = request.headers.get("Accept", "*/*")
        if "*/*" in accept:
            accept = request.content_type
        content_type = wire.JSON if wire.JSON in accept else wire.BINARY
        body = await _read_body(request)
        if body is None:
            status, reply = 400, _error(f"the request is larger than {MAX_BODY} bytes", content_type)
        else:
            status, reply = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._answer, request, body, content_type
            )
        headers = {wire.TIME_HEADER: f"{time.monotonic() - started:.6f}"}
        return web.Response(status=status, body=reply, content_type=content_type, headers=headers)

    def _authorized(self, header: str) -> bool:
        if self._credentials is None:
            return True
        scheme, _, token = header.partition(" ")
        try:
            given = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, self._credentials)

    def _answer(self, request: web.Request, body: bytes, content_type: str) -> tuple[int, bytes]:
        try:
            handler = self._routes.get(request.path) if request.method == "POST" else None
            if handler is None:
                raise RequestError(
                    f"{request.method} {request.path} is not an endpoint of the embedded table server"
                )
            endpoint = wire.ENDPOINTS[request.path]
            record = _read_request(endpoint, body, request.content_type)
            response = handler(record, request.host.rsplit(":", 1)[0])
            return 200, wire.encode_ok(endpoint, response, content_type)
        except RequestError as error:
            return 400, _error(str(error), content_type)
        except Exception as error:  # a defect of the server must not look like a dead cluster either
            _log.exception("%s failed", request.path)
            return 400, _error(f"internal error: {type(error).__name__}", content_type)


async def _read_body(request: web.Request) -> bytes | None:
    """The body, or None if it is too large."""
    if (request.content_length or 0) > MAX_BODY:
        return None
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:  # sent in chunks, or compressed
        return None
    except ConnectionResetError as error:  # the client died: nobody hears this, and nothing is wrong here
        raise web.HTTPBadRequest from error


def _error(message: str, content_type: str) -> bytes:
    # Text of the user's may be in it, which must neither break the encoding nor make clients fail over.
    text = " ".join(message.encode(errors="backslashreplace").decode().split())
    if wire.is_failover_message(text):
        text = text.replace(" ", "_").replace("-", "_")
    return wire.encode_error(text, content_type)


def _read_request(endpoint: wire.Endpoint, body: bytes, content_type: str) -> dict[str, Any]:
    try:
        if content_type == wire.JSON:
            return _read_json(endpoint, body)
        if content_type == wire.SNAPPY:
            body = _unsnap(body)
        return wire.decode(endpoint.request, body)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(str(error)) from error


def _unsnap(body: bytes) -> bytes:
    """Undo raw Snappy, whose first bytes are the length of the result as a varint."""
    import pyarrow  # here, since loading it takes long and hardly any client compresses

    size = shift = 0
    for byte in body[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > MAX_BODY:
        raise RequestError(f"the request is larger than {MAX_BODY} bytes")
    try:
        return bytes(pyarrow.Codec("snappy").decompress(body, size, asbytes=True))
    except (OSError, ValueError) as error:
        raise RequestError("the request is not Snappy data") from error


def _read_json(endpoint: wire.Endpoint, body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise RequestError(f"the request is not a {endpoint.request_name} object")
    typed = {}
    for field in endpoint.request["fields"]:
        name, avro = field["name"], field["type"]
        if name not in record and not isinstance(avro, dict):
            raise RequestError(f"the request lacks {name}")
        default: Any = {} if isinstance(avro, dict) and avro["type"] == "map" else []
        typed[name] = _typed(name, avro, record.get(name, default))
    return typed


def _typed(name: str, avro: Any, value: Any) -> Any:
    """Check a JSON value against the Avro type of a request's field; bytes are one character each."""
    if isinstance(avro, list):
        return None if value is None else _typed(name, avro[0], value)
    if isinstance(avro, dict):
        if avro["type"] == "array" and isinstance(value, list):
            return [_typed(name, avro["items"], item) for item in value]
        if avro["type"] == "map" and isinstance(value, dict):
            return {key: _typed(name, avro["values"], item) for key, item in value.items()}
    elif avro == "long" and type(value) is int:
        return value
    elif avro in ("string", "bytes") and isinstance(value, str):
        try:
            return value.encode("latin-1") if avro == "bytes" else value.encode().decode()
        except UnicodeEncodeError as error:
            raise RequestError(f"{name} holds characters that cannot be encoded") from error
    raise RequestError(f"{name} is not of the type {avro if isinstance(avro, str) else avro['type']}")
