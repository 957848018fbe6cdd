"""The HTTP endpoints of the event store; storage is in ``store.py`` and ``writer.py``."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import orjson
from aiohttp import web

from protocols.kronos import wire
from protocols.kronos.server.events import Batch, Encoder, parse_json
from protocols.kronos.server.schema import infer_schema
from protocols.kronos.server.store import Reader
from protocols.kronos.server.writer import Delete, Put, Writer

logger = logging.getLogger(__name__)

Mode = Literal["all", "readonly", "collector"]
T = TypeVar("T")

_READING = frozenset({wire.INDEX, wire.GET, wire.STREAMS, wire.INFER_SCHEMA})
#: The endpoints that are open in each serving mode.
MODES: dict[str, frozenset[str]] = {
    "all": _READING | {wire.PUT, wire.DELETE},
    "readonly": _READING,
    "collector": frozenset({wire.INDEX, wire.PUT}),
}

#: The name of the storage backend in replies.
BACKEND = "sqlite"
#: The protocol version that clients are told.
VERSION = "0.6.2"
#: Seconds that a client may take to send its body, or to take in a part of a reply.
IO_TIMEOUT = 60.0
#: Bodies in memory at a time, as a multiple of the largest allowed; what is beyond is told to come again.
PENDING_BODIES = 2
#: Larger bodies are decoded in a thread, not between other requests.
_INLINE_BYTES = 512 * 1024
#: Events that infer_schema looks at.
_SAMPLE = 100


@dataclass(frozen=True)
class Settings:
    """What the endpoints need to know; the meaning of each is given at ``EventStore``."""

    namespaces: Sequence[str]
    mode: Mode
    node_id: str
    flush_size: int
    max_body_bytes: int
    cors_whitelist_domains: Sequence[str]


class _Refused(Exception):
    """The request ends with this status and error text."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers


class Call:
    """One request and what its reply needs: the clock and the caller's web origin."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self._started = time.perf_counter()

    def cors(self) -> dict[str, str]:
        origin = self.request.headers.get("Origin")
        return {} if origin is None else {"Access-Control-Allow-Origin": origin}

    def reply(self, fields: dict[str, Any], status: int = 200, **headers: str) -> web.Response:
        took = f"{(time.perf_counter() - self._started) * 1e3:f}ms"
        return _json({**fields, "@took": took}, status, headers | (self.cors() if status == 200 else {}))


def _json(fields: dict[str, Any], status: int, headers: dict[str, str]) -> web.Response:
    body = json.dumps(fields).encode("ascii")
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


class Api:
    """The handler of all requests; its `readers` are used by as many threads."""

    def __init__(self, settings: Settings, writer: Writer, readers: Sequence[sqlite3.Connection]) -> None:
        self._settings = settings
        self._writer = writer
        self._encoder = Encoder()
        self._readers: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        for connection in readers:
            self._readers.put(Reader(connection))
        self._pool = ThreadPoolExecutor(len(readers), "kronos-reader")
        self._pending_bytes = 0
        self._origins = [re.compile(pattern) for pattern in settings.cors_whitelist_domains]
        self._endpoints: dict[str, Callable[[Call, Any, int], Awaitable[web.StreamResponse]]] = {
            wire.PUT: self._put,
            wire.GET: self._get,
            wire.DELETE: self._delete,
            wire.STREAMS: self._streams,
            wire.INFER_SCHEMA: self._infer_schema,
        }

    def close(self) -> None:
        self._pool.shutdown()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path not in MODES["all"]:
            return web.Response(status=404, text="Four, oh, four :'(")
        call = Call(request)
        try:
            if path not in MODES[self._settings.mode]:
                raise _Refused(403, "kronosd is configured to block access to this endpoint.")
            if request.method == "OPTIONS":
                return self._preflight(request)
            method = "GET" if path == wire.INDEX else "POST"
            if request.method != method:
                raise _Refused(405, f"{request.method} method not allowed", Allow=f"{method}, OPTIONS")
            if path == wire.INDEX:
                return self._index(call)
            return await self._with_body(call, self._endpoints[path])
        except _Refused as refusal:
            fields = {"@success": False, "@errors": [str(refusal)]}
            return call.reply(fields, refusal.status, **refusal.headers)
        except (ValueError, RecursionError) as error:
            return call.reply({"@success": False, "@errors": [_text(error)]}, 400)
        except ConnectionError:  # the client is gone, nobody reads the reply
            return web.Response(status=400)
        except Exception:
            logger.exception("event store: %s failed", path)
            return call.reply({"@success": False, "@errors": ["internal error, see the server's log"]}, 500)

    def _preflight(self, request: web.BaseRequest) -> web.Response:
        origin = request.headers.get("Origin")
        if origin is None or not any(pattern.match(origin) for pattern in self._origins):
            return web.Response()
        return web.Response(
            headers={
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Allow-Headers": "Accept, Content-Type, Origin, X-Requested-With",
                "Access-Control-Allow-Methods": "POST, OPTIONS",
            }
        )

    async def _with_body(
        self, call: Call, endpoint: Callable[[Call, Any, int], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        body = bytearray()
        try:
            async with asyncio.timeout(IO_TIMEOUT):
                await self._read_body(call.request, body)
            try:
                if len(body) > _INLINE_BYTES:
                    value = await self._in_thread(lambda: parse_json(bytes(body)))
                else:
                    value = parse_json(bytes(body))
            except ValueError:
                raise _Refused(400, "Request body must be valid JSON.") from None
            if not isinstance(value, dict):
                raise ValueError("the request must be a JSON object")
            return await endpoint(call, value, len(body))
        except TimeoutError:
            raise _Refused(408, f"no complete request within {IO_TIMEOUT:g} s") from None
        finally:
            self._pending_bytes -= len(body)

    async def _read_body(self, request: web.BaseRequest, body: bytearray) -> None:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        most = self._settings.max_body_bytes
        if (request.content_length or 0) > most:
            raise _Refused(413, f"the body exceeds {most} bytes: send fewer events at a time")
        while part := await request.content.readany():
            body += part
            self._pending_bytes += len(part)
            if len(body) > most:
                raise _Refused(413, f"the body exceeds {most} bytes: send fewer events at a time")
            if self._pending_bytes > PENDING_BODIES * most:
                raise _Refused(503, "too much is waiting to be written: try again", **{"Retry-After": "1"})

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` in a thread with a reader; there are as many readers as threads."""

        def run() -> T:
            reader = self._readers.get()
            try:
                return work(reader)
            finally:
                self._readers.put(reader)

        return await self._in_thread(run)

    def _namespace(self, request: dict[str, Any]) -> str:
        namespace = request.get("namespace", self._settings.namespaces[0])
        if namespace not in self._settings.namespaces:
            raise ValueError(f"NamespaceMissing: {namespace!r:.80} namespace is not configured")
        return str(namespace)

    def _index(self, call: Call) -> web.Response:
        storage = {BACKEND: {"alive": True, "backend": "tablecast"}}
        return call.reply(
            {
                "service": "kronosd",
                "@success": True,
                "storage": storage,
                "version": VERSION,
                "id": self._settings.node_id,
            }
        )

    async def _put(self, call: Call, request: Any, size: int) -> web.Response:
        errors: list[str] = []
        if size > _INLINE_BYTES:
            namespace, batches = await self._in_thread(lambda: self._encode(request, errors))
        else:
            namespace, batches = self._encode(request, errors)
        fields: dict[str, Any] = {"@success": not errors}
        if errors:
            fields["@errors"] = errors
        try:
            duplicates = await self._writer.write(Put(namespace, batches, size, _future())) if batches else []
        except sqlite3.Error as error:
            failed = {BACKEND: {"@errors": [_text(error)], "num_inserted": -1}}
            return call.reply({**fields, "@success": False, **dict.fromkeys(batches, failed)})
        for (stream, batch), known in zip(batches.items(), duplicates, strict=True):
            fields[stream] = {BACKEND: {"num_inserted": len(batch.keys), "num_duplicates": known}}
        return call.reply(fields)

    def _encode(self, request: dict[str, Any], errors: list[str]) -> tuple[str, dict[str, Batch]]:
        """The namespace and batches of a put request; what is wrong with single events goes to `errors`."""
        events = request.get("events", {})
        if not isinstance(events, dict):
            raise ValueError("events must be an object: {stream: [event, ...]}")
        valid: dict[str, list[Any]] = {}
        for stream, values in events.items():
            if not wire.is_stream_name(stream):
                errors.append(_text(wire.InvalidStreamName(stream)))
            elif not isinstance(values, list):
                raise ValueError(f"the events of {stream:.80} must be a list")
            else:
                valid[stream] = values
        namespace = self._namespace(request) if valid else ""
        return namespace, {stream: self._encoder.encode(v, errors) for stream, v in valid.items() if v}

    async def _delete(self, call: Call, request: Any, size: int) -> web.Response:
        try:
            target = wire.parse_range(request)
        except wire.InvalidStreamName as error:
            return call.reply({"@errors": [_text(error)]}, 400, **call.cors())
        namespace = self._namespace(request)
        try:
            deleted = await self._writer.write(Delete(namespace, target, _future()))
        except sqlite3.Error as error:
            failed = {BACKEND: {"@errors": [_text(error)], "num_deleted": -1}}
            return call.reply({"@success": False, target.stream: failed})
        return call.reply({"@success": True, target.stream: {BACKEND: {"num_deleted": deleted}}})

    async def _get(self, call: Call, request: Any, size: int) -> web.StreamResponse:
        try:
            target = wire.parse_range(request)
        except wire.InvalidStreamName as error:
            return _json({"@success": False, "@errors": [_text(error)]}, 400, call.cors())
        limit = wire.parse_limit(request)
        descending = request.get("order") == "descending"
        namespace = self._namespace(request)
        stream = await self._read(lambda reader: reader.stream_id(namespace, target.stream))

        async def pages() -> AsyncIterator[bytes]:
            rest: tuple[int, int] | None = (target.start, target.stop)
            left = limit
            while stream is not None and rest is not None and left > 0:
                page = await self._read(
                    partial(Reader.page, stream=stream, bounds=rest, limit=left, descending=descending)
                )
                rest, left = page.rest, left - page.lines
                yield page.data

        return await self._stream(call, pages())

    async def _streams(self, call: Call, request: Any, size: int) -> web.StreamResponse:
        namespace = self._namespace(request)
        names = await self._read(lambda reader: reader.streams(namespace))

        async def pages() -> AsyncIterator[bytes]:
            yield b"".join(name.encode("ascii") + wire.LINE_END for name in names)

        return await self._stream(call, pages())

    async def _infer_schema(self, call: Call, request: Any, size: int) -> web.Response:
        stream = wire.parse_stream(request)
        if request.get("namespace", "") in (None, ""):
            request.pop("namespace", None)
        namespace = self._namespace(request)

        def sample(reader: Reader) -> list[bytes]:
            stream_id = reader.stream_id(namespace, stream)
            rest: tuple[int, int] | None = (wire.first_key(0), wire.first_key(wire.now() + 1))
            lines: list[bytes] = []
            while stream_id is not None and rest is not None:
                page = reader.page(stream_id, rest, _SAMPLE - len(lines), descending=True)
                rest = page.rest
                lines += page.data.splitlines()
            return lines

        lines = await self._read(sample)
        schema = infer_schema(orjson.loads(line) for line in lines)
        return call.reply({"@success": True, "namespace": namespace, "stream": stream, "schema": schema})

    async def _stream(self, call: Call, pages: AsyncIterator[bytes]) -> web.StreamResponse:
        """Send lines as they come, in parts that end with the first line to reach flush_size bytes."""
        response = web.StreamResponse(headers={"Content-Type": "application/json", **call.cors()})
        await response.prepare(call.request)
        flush_size = self._settings.flush_size
        buffer = b""
        try:
            async for page in pages:
                buffer += page
                start = 0
                while len(buffer) - start > flush_size:
                    end = buffer.find(b"\n", start + flush_size - 1) + 1
                    await _send(response, buffer[start:end])
                    start = end
                buffer = buffer[start:]
            if buffer:
                await _send(response, buffer)
        except Exception as error:
            # Only a reply without its end tells the client that it is not complete.
            level = logging.INFO if isinstance(error, ConnectionError) else logging.WARNING
            logger.log(level, "event store: a streamed reply broke off: %s: %s", type(error).__name__, error)
            if call.request.transport is not None:
                call.request.transport.abort()
        return response


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


async def _send(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(IO_TIMEOUT):
        await response.write(data)
