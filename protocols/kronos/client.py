"""A client of Kronos servers: the original ones and the embedded event store.

Calls block, each with a timeout. Only :meth:`KronosClient.get` repeats requests by itself, because it knows
where to go on; whoever puts decides from an error's ``retryable`` whether to send again, which is free of
doubles when the events carry an ``@origin`` and the server is the embedded one.

Not here: buffering and non-blocking puts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson
import requests

from protocols.kronos import wire
from protocols.kronos.errors import (
    BadReply,
    ConnectionFailed,
    EventsRefused,
    KronosError,
    RequestRefused,
    RequestTimedOut,
    ServerUnavailable,
    TransientError,
)
from protocols.retry_after import parse_retry_after

#: Bytes asked for at a time from a streamed reply.
_READ_BYTES = 131072
#: Seconds before the first repetition of a get, doubled each time up to the cap; half of it is random.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: Most seconds that a server's Retry-After can make a get wait.
_LONGEST_RETRY_AFTER = 60.0

#: Refusals below 500 that say nothing of the request: a proxy without its backend, a server that is slow or is being
#: changed, credentials being renewed.
_PASSING = frozenset({401, 403, 404, 408, 425, 429})


class KronosClient:
    """A client of one server; several threads may use it at once.

    Args:
        url: base URL, for example ``http://127.0.0.1:8151``; it may hold a path prefix and ``user:password@``.
        namespace: sent with each request; None leaves the choice to the server.
        timeout: seconds to connect, to wait for each part of a streamed reply, and for the whole of any other.
        max_retries: how often in a row a get is repeated without a new event.
        username, password: for HTTP basic authentication, as of a proxy before the server; or `token`, a bearer token.

    All calls raise :class:`KronosError`; ``ValueError`` for a URL that is not one.
    """

    def __init__(
        self,
        url: str,
        namespace: str | None = None,
        *,
        timeout: float = 30.0,
        max_retries: int = 8,
        username: str = "",
        password: str = "",
        token: str = "",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a Kronos URL looks like http://host:port")
        self._url = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", "")
        )
        self._namespace = namespace
        self._timeout = timeout
        self._max_retries = max_retries
        self._session = requests.Session()
        if not username and parts.username is not None:
            username, password = unquote(parts.username), unquote(parts.password or "")
        if token:
            self._session.auth = _Bearer(token)
        elif username:  # as bytes, of which requests would otherwise make Latin-1
            self._session.auth = requests.auth.HTTPBasicAuth(username.encode(), password.encode())

    def __repr__(self) -> str:
        return f"KronosClient({self._url!r}, namespace={self._namespace!r})"

    def __enter__(self) -> KronosClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def index(self) -> dict[str, Any]:
        """What the server says about itself."""
        return self._call("GET", wire.INDEX, None)

    def put(self, events: dict[str, list[dict[str, Any]]], namespace: str | None = None) -> dict[str, Any]:
        """Store events by stream and return the reply, with counts per stream and backend.

        An event without ``@time`` (integer, 100 ns since 1970) gets the server's clock. Raises
        ``EventsRefused`` if some were refused; the rest is stored then. Raises ``TypeError`` for values that
        JSON does not have.
        """
        return self.put_encoded(orjson.dumps(self._with_namespace({"events": events}, namespace)))

    def put_encoded(self, body: bytes) -> dict[str, Any]:
        """As :meth:`put`, with the JSON text of the whole request; the client's namespace is not added."""
        reply = self._call("POST", wire.PUT, body)
        if reply["@success"]:
            return reply
        results = [
            item for backends in reply.values() if isinstance(backends, dict) for item in backends.values()
        ]
        unwritten = any(isinstance(item, dict) and item.get("num_inserted") == -1 for item in results)
        what = f"{self._url}{wire.PUT}: {_errors_of(reply)}"
        if unwritten:
            raise ServerUnavailable(
                f"{what}; the server could not write, send again", status=200, reply=reply
            )
        raise EventsRefused(f"{what}; the other events are stored", status=200, reply=reply)

    def get(
        self,
        stream: str,
        start_time: int,
        end_time: int,
        *,
        start_id: str | None = None,
        limit: int | None = None,
        order: str = "ascending",
        namespace: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The events of a stream, as they arrive; nothing is sent before the first is asked for.

        A reply that breaks off is resumed after the last event, so that none is missing or given twice.

        Args:
            start_time: first time, inclusive, in 100 ns since 1970.
            end_time: last time, inclusive; ``wire.MAX_TIME`` for ever.
            start_id: only events after this ``@id``, in place of `start_time`.
            limit: most events to give.
            order: ``ascending`` or ``descending``.
            namespace: in place of the client's.
        """
        if order not in ("ascending", "descending"):
            raise ValueError(f"order must be ascending or descending, not {order!r}")
        request: dict[str, Any] = {"stream": stream, "end_time": end_time, "order": order}
        request |= {"start_time": start_time} if start_id is None else {"start_id": start_id}
        left = wire.NO_LIMIT if limit is None else limit
        # Events already given that a resumed descending get, which can name no upper id, will send again.
        given: set[str] = set()
        failures = 0
        while left > 0:
            known = given if order == "descending" else set()
            request["limit"] = min(left + len(known), wire.NO_LIMIT)
            body = orjson.dumps(self._with_namespace(request, namespace))
            try:
                for line in self._lines(wire.GET, body):
                    event = self._event(line)
                    event_id, event_time = event["@id"], event["@time"]
                    if event_id in known:
                        continue
                    failures = 0
                    left -= 1
                    if order == "ascending":
                        request.pop("start_time", None)
                        request["start_id"] = event_id
                    elif request["end_time"] == event_time:
                        given.add(event_id)
                    else:
                        request["end_time"] = event_time
                        given = {event_id}
                    yield event
                return
            except TransientError as error:
                failures += 1
                if failures > self._max_retries:
                    raise
                pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1)
                time.sleep(max(pause, min(error.retry_after or 0, _LONGEST_RETRY_AFTER)))

    def delete(
        self,
        stream: str,
        start_time: int,
        end_time: int,
        *,
        start_id: str | None = None,
        namespace: str | None = None,
    ) -> int:
        """Delete the events of a range, its bounds as those of :meth:`get`, and return their number."""
        request: dict[str, Any] = {"stream": stream, "end_time": end_time}
        request |= {"start_time": start_time} if start_id is None else {"start_id": start_id}
        reply = self._call("POST", wire.DELETE, orjson.dumps(self._with_namespace(request, namespace)))
        if not reply["@success"]:
            raise ServerUnavailable(
                f"{self._url}{wire.DELETE}: {_errors_of(reply)}; try again", status=200, reply=reply
            )
        return max((int(backend["num_deleted"]) for backend in reply.get(stream, {}).values()), default=0)

    def get_streams(self, namespace: str | None = None) -> Iterator[str]:
        """The names of the streams."""
        for line in self._lines(wire.STREAMS, orjson.dumps(self._with_namespace({}, namespace))):
            yield line.decode("ascii")

    def infer_schema(self, stream: str, namespace: str | None = None) -> dict[str, Any]:
        """The JSON schema of the newest events of a stream."""
        body = orjson.dumps(self._with_namespace({"stream": stream}, namespace))
        schema: dict[str, Any] = self._call("POST", wire.INFER_SCHEMA, body)["schema"]
        return schema

    def _with_namespace(self, request: dict[str, Any], namespace: str | None) -> dict[str, Any]:
        chosen = self._namespace if namespace is None else namespace
        return request if chosen is None else {**request, "namespace": chosen}

    def _event(self, line: bytes) -> dict[str, Any]:
        try:
            event = orjson.loads(line)
        except ValueError:
            # Half a line: a server that does not frame its reply broke off.
            raise ConnectionFailed(f"{self._url}{wire.GET}: the reply broke off within an event") from None
        if not isinstance(event, dict) or "@id" not in event or "@time" not in event:
            raise BadReply(f"{self._url}{wire.GET}: an event without @id and @time: {line!r:.200}")
        return event

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        with self._send(method, path, body) as response:
            content = self._read(path, response, deadline)
        try:
            reply = orjson.loads(content)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or "@success" not in reply:
            raise BadReply(f"{self._url}{path}: not a reply of a Kronos server: {content!r:.200}")
        return reply

    def _read(self, path: str, response: requests.Response, deadline: float) -> bytes:
        """The whole body, which is small. The timeout of the connection starts anew with each byte; this does not."""
        content = bytearray()
        try:
            for byte in response.iter_content(1):
                content += byte
                if time.monotonic() > deadline:
                    raise requests.Timeout
        except requests.RequestException as error:
            raise self._failure(path, error) from error
        return bytes(content)

    def _lines(self, path: str, body: bytes) -> Iterator[bytes]:
        """The lines of a streamed reply without their ends, empty ones left out."""
        with self._send("POST", path, body) as response:
            rest = b""
            parts = response.iter_content(_READ_BYTES)
            while True:
                try:
                    part = next(parts, None)
                except requests.RequestException as error:
                    raise self._failure(path, error) from error
                if part is None:
                    break
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line := line.rstrip(b"\r"):
                        yield line
            if rest:
                yield rest

    def _send(self, method: str, path: str, body: bytes | None) -> requests.Response:
        deadline = time.monotonic() + self._timeout
        try:
            response = self._session.request(
                method,
                self._url + path,
                data=body,
                timeout=self._timeout,
                stream=True,
                allow_redirects=False,
            )
            if response.status_code == 200:
                return response
            with response:
                raise self._refusal(path, response, self._read(path, response, deadline))
        except requests.RequestException as error:
            raise self._failure(path, error) from error

    def _failure(self, path: str, error: requests.RequestException) -> KronosError:
        what = f"{self._url}{path}: {type(error).__name__}"
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            return RequestTimedOut(
                f"{what}: no answer within {self._timeout:g} s; try again, it may have happened"
            )
        return ConnectionFailed(f"{what}: no connection or a reply cut off; is the server running?")

    def _refusal(self, path: str, response: requests.Response, content: bytes) -> KronosError:
        status = response.status_code
        try:
            reply = orjson.loads(content)
        except ValueError:
            reply = None
        reply = reply if isinstance(reply, dict) else None
        reason = _errors_of(reply) if reply else response.reason
        message = f"{self._url}{path}: status {status}: {reason}"
        if status in _PASSING or status >= 500:
            return ServerUnavailable(
                f"{message}; try again, and check the URL if it stays so",
                retry_after=parse_retry_after(response.headers.get("Retry-After")),
                status=status,
                reply=reply,
            )
        return RequestRefused(f"{message}; correct the request", status=status, reply=reply)


class _Bearer(requests.auth.AuthBase):
    """Puts a bearer token into requests; a session's plain headers would yield to a ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _errors_of(reply: dict[str, Any]) -> str:
    """The error texts of a reply, at any depth, shortened."""
    texts: list[str] = []
    for name, value in reply.items():
        if name == "@errors" and isinstance(value, list):
            texts += map(str, value)
        elif isinstance(value, dict):
            texts.append(_errors_of(value))
    return "; ".join(filter(None, texts))[:500]
