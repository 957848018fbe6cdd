"""A client of V3IO's data plane, as far as a writing sink needs it: objects, table items, records of streams.

A call is one request and never repeats it, except for :meth:`V3ioClient.put_items`, whose requests are
independent of each other. Whoever calls decides from an error's ``retryable`` whether to send again: puts of
objects and items, and updates with a condition on what they change, are free of doubles then; appends and
records are not, as a lost reply does not tell whether they arrived.

Not here: scans, reading streams, listings, the names of the official client; see ``official.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import orjson
import requests

from protocols.closing import Closing
from protocols.retry_after import parse_retry_after
from protocols.v3io import wire
from protocols.v3io.burst import Burst
from protocols.v3io.connection import Connection
from protocols.v3io.errors import (
    AlreadyExists,
    AuthenticationFailed,
    BadReply,
    ConditionFalse,
    NotFound,
    RequestRefused,
    ServerUnavailable,
    TransientError,
    V3ioError,
    is_transient,
)

T = TypeVar("T")

#: Bytes of a PutRecords body that are not in its records, and of a record that are not in its fields; generous.
_BODY_BYTES = 64
_RECORD_BYTES = 96


class Record(NamedTuple):
    """A record for a stream. `shard` wins over `partition_key`; with neither the server chooses a shard."""

    data: bytes
    partition_key: str | None = None
    shard: int | None = None
    client_info: bytes | None = None


class PutResult(NamedTuple):
    """Where a record was stored, or with `error_code` not None, why it was not."""

    shard: int | None
    sequence_number: int | None
    error_code: int | None
    error_message: str | None


class StreamInfo(NamedTuple):
    shard_count: int
    retention_hours: int


class V3ioClient(Closing):
    """A client of one server, for use from any number of threads.

    Args:
        url: base URL, for example ``https://webapi.example.com`` or ``http://127.0.0.1:8081``.
        access_key: sent with each request; None for servers that ask for none.
        timeout: seconds to connect, and then to wait for each part of a reply.
        connections: most requests at a time; further ones wait.
        verify: True to check TLS certificates against the usual authorities, or the path of a file of
            trusted ones. There is no way to skip the check.

    Paths are those within a container. All calls raise :class:`V3ioError`, ``ValueError`` or ``TypeError`` for what
    cannot be sent, and ``RuntimeError`` once it is closed.
    """

    def __init__(
        self,
        url: str,
        access_key: str | None = None,
        *,
        timeout: float = 30.0,
        connections: int = 8,
        verify: Literal[True] | str = True,
    ) -> None:
        self._connection = Connection(
            url, access_key, timeout=timeout, connections=connections, verify=verify
        )
        self._url = self._connection.url
        netloc = urlsplit(self._url).netloc
        self._burst = Burst(self._url, timeout, connections, verify)
        host = netloc.encode("idna" if not netloc.isascii() else "ascii")
        key = b"" if access_key is None else f"{wire.SESSION_HEADER}: {access_key}\r\n".encode()
        self._item_head = (
            b" HTTP/1.1\r\nHost: " + host + b"\r\n" + key + wire.FUNCTION_HEADER.encode() + b": PutItem\r\n"
            b"Content-Type: application/json\r\nContent-Length: "
        )

    def __repr__(self) -> str:
        return f"V3ioClient({self._url!r})"

    def close(self) -> None:
        self._burst.close()
        self._connection.close()

    def check_container(self, container: str) -> None:
        """Ask for nothing but to see a container; raises :class:`NotFound` if there is none."""
        self._send("GET", wire.quote_path(container, "") + "?max-keys=1")

    def put_object(self, container: str, path: str, data: bytes, *, append: bool = False) -> None:
        """Replace an object, or add to its end; directories are made as needed."""
        headers = {"Range": "-1"} if append else {"Content-Type": "application/octet-stream"}
        self._send("PUT", wire.quote_path(container, _named(path)), data, headers)

    def get_object(self, container: str, path: str) -> bytes:
        return self._send("GET", wire.quote_path(container, _named(path))).content

    def delete_object(self, container: str, path: str) -> None:
        """Delete an object or item; raises :class:`NotFound` if there is none."""
        self._send("DELETE", wire.quote_path(container, _named(path)))

    def put_item(
        self,
        container: str,
        path: str,
        attributes: Mapping[str, Any],
        *,
        condition: str | None = None,
        merge: bool = False,
    ) -> None:
        """Replace an item's attributes, or with `merge` keep those that are not given.

        Args:
            path: of the item, its table's first: ``table/key``.
            condition: an expression that the item must fulfil as it is; else :class:`ConditionFalse`.
        """
        body = _with_condition(_item_body(attributes, merge), condition)
        self._call("PutItem", container, _named(path), body)

    def put_items(
        self, container: str, table: str, items: Mapping[str, Mapping[str, Any]], *, merge: bool = False
    ) -> dict[str, V3ioError]:
        """Put items by key, several at a time; the keys that failed, with their errors."""
        bodies = [
            (item_path(table, key), orjson.dumps(_item_body(item, merge))) for key, item in items.items()
        ]
        errors = zip(items, self.put_encoded_items(container, bodies), strict=True)
        return {key: error for key, error in errors if error is not None}

    def put_encoded_items(self, container: str, items: Sequence[tuple[str, bytes]]) -> list[V3ioError | None]:
        """Put items, each a path and the body of its PutItem, in any order; for each None, or why it failed.

        After one that got no answer, those that were not answered either are not tried again.
        """
        base = urlsplit(self._url).path
        heads = [f"PUT {base}{wire.quote_path(container, path)}".encode() for path, _ in items]
        requests = [
            b"%b%b%d\r\n\r\n%b" % (head, self._item_head, len(body), body)
            for head, (_, body) in zip(heads, items, strict=True)
        ]
        results: list[V3ioError | None] = []
        silent: V3ioError | None = None
        for done, (path, body) in zip(self._burst.send(requests), items, strict=True):
            error = None if done else silent or self._put_encoded(container, path, body)
            if isinstance(error, TransientError) and error.status is None:
                silent = error
            results.append(error)
        return results

    def _put_encoded(self, container: str, path: str, body: bytes) -> V3ioError | None:
        try:
            self._call("PutItem", container, path, body)
        except V3ioError as error:
            return error
        return None

    def update_item(
        self,
        container: str,
        path: str,
        expression: str,
        *,
        condition: str | None = None,
        alternate: str | None = None,
    ) -> None:
        """Run an update expression on an item, made if it is missing; `alternate` if `condition` is false."""
        body = {"UpdateMode": wire.MERGE, "UpdateExpression": expression}
        if alternate is not None:
            body["AlternateUpdateExpression"] = alternate
        self._call("UpdateItem", container, _named(path), _with_condition(body, condition))

    def get_item(self, container: str, path: str, names: Iterable[str] = ("*",)) -> dict[str, wire.Value]:
        """The attributes of these names that the item has; ``*`` is all of users, ``**`` those of the system too."""
        reply = self._call("GetItem", container, _named(path), {"AttributesToGet": ",".join(names)})
        return self._parsed("GetItem", reply, lambda fields: wire.decode_attributes(fields["Item"]))

    def create_stream(self, container: str, path: str, shard_count: int, retention_hours: int = 24) -> None:
        """Make a stream; raises :class:`AlreadyExists`."""
        body = {"ShardCount": shard_count, "RetentionPeriodHours": retention_hours}
        self._call("CreateStream", container, _named(path) + "/", body)

    def describe_stream(self, container: str, path: str) -> StreamInfo:
        reply = self._call("DescribeStream", container, _named(path) + "/", {})
        return self._parsed(
            "DescribeStream",
            reply,
            lambda fields: StreamInfo(int(fields["ShardCount"]), int(fields["RetentionPeriodHours"])),
        )

    def put_records(self, container: str, path: str, records: Sequence[Record]) -> list[PutResult]:
        """Add records to a stream and return for each, in order, what became of it.

        A reply that says that some were refused is not an error: look at each ``error_code``. Raises
        ``ValueError`` for more than one request can hold; see :func:`batches`.
        """
        if next(more := batches(records), None) is not None and next(more, None) is not None:
            raise ValueError("these are too many or too large records for one request: use batches()")
        body = {"Records": [_encode_record(record) for record in records]}
        return self.put_encoded_records(container, path, orjson.dumps(body), len(records))

    def put_encoded_records(self, container: str, path: str, body: bytes, count: int) -> list[PutResult]:
        """:meth:`put_records` with a body of `count` records that is encoded already."""
        reply = self._call("PutRecords", container, _named(path) + "/", body)
        results = self._parsed(
            "PutRecords", reply, lambda fields: [_put_result(result) for result in fields["Records"]]
        )
        if len(results) != count:
            raise BadReply(f"{self._url}: PutRecords answered {len(results)} of {count} records")
        return results

    def function(
        self, name: str, container: str, path: str, body: Mapping[str, Any], parse: Callable[[Any], T]
    ) -> T:
        """Call a function of the web API on a stream or shard, and `parse` what it replies."""
        return self._parsed(name, self._call(name, container, _named(path) + "/", body), parse)

    def _call(
        self, function: str, container: str, path: str, body: Mapping[str, Any] | bytes
    ) -> requests.Response:
        headers = {wire.FUNCTION_HEADER: function, "Content-Type": "application/json"}
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return self._send("PUT", wire.quote_path(container, path), data, headers)

    def _parsed(self, function: str, reply: requests.Response, parse: Callable[[Any], T]) -> T:
        try:
            return parse(orjson.loads(reply.content))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise BadReply(f"{self._url}: not a reply to {function}: {reply.content!r:.200}") from None

    def _send(
        self, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        response = self._connection.send(method, path, data, headers)
        if response.status_code >= 300:
            raise _refusal(self._connection.describe(method, path), response)
        return response


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Split records, in order, into as many as one request can hold.

    Raises ``ValueError`` for a record that none can.
    """
    batch: list[Record] = []
    size = _BODY_BYTES
    for record in records:
        key_bytes = len((record.partition_key or "").encode())
        if len(record.data) > wire.MAX_RECORD_BYTES or key_bytes > wire.MAX_PARTITION_KEY_BYTES:
            raise ValueError(
                f"a record holds at most {wire.MAX_RECORD_BYTES} bytes of data and a partition key of"
                f" {wire.MAX_PARTITION_KEY_BYTES}, not {len(record.data)} and {key_bytes}"
            )
        # A key's characters may be escaped, each with six; the rest is base64.
        added = _RECORD_BYTES + (len(record.data) + len(record.client_info or b"")) * 4 // 3 + 6 * key_bytes
        if added + _BODY_BYTES > wire.MAX_RECORDS_BYTES:
            raise ValueError(
                f"client_info has {len(record.client_info or b'')} bytes, more than a request can hold"
            )
        if batch and (len(batch) == wire.MAX_RECORDS or size + added > wire.MAX_RECORDS_BYTES):
            yield batch
            batch, size = [], _BODY_BYTES
        batch.append(record)
        size += added
    if batch:
        yield batch


def item_path(table: str, key: str) -> str:
    """The path of a table's item. Raises ``ValueError`` for a key that is empty or has a slash."""
    if not key or "/" in key:
        raise ValueError(f"{key!r:.80} cannot be a key: it must not be empty or hold a slash")
    return f"{table.rstrip('/')}/{key}"


def _named(path: str) -> str:
    path = path.strip("/")
    if not path:
        raise ValueError("the path is empty")
    return path


def _item_body(attributes: Mapping[str, Any], merge: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"UpdateMode": wire.MERGE} if merge else {}
    return {**body, "Item": wire.encode_attributes(attributes)}


def _with_condition(body: dict[str, Any], condition: str | None) -> dict[str, Any]:
    return body if condition is None else {**body, "ConditionExpression": condition}


def _encode_record(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"Data": wire.encode_base64(record.data)}
    if record.client_info is not None:
        fields["ClientInfo"] = wire.encode_base64(record.client_info)
    if record.shard is not None:
        fields["ShardId"] = record.shard
    if record.partition_key is not None:
        fields["PartitionKey"] = record.partition_key
    return fields


def _put_result(fields: dict[str, Any]) -> PutResult:
    if fields.get("ErrorCode") is not None:
        return PutResult(None, None, int(fields["ErrorCode"]), str(fields.get("ErrorMessage", "")))
    return PutResult(int(fields["ShardId"]), int(fields["SequenceNumber"]), None, None)


def _refusal(what: str, response: requests.Response) -> V3ioError:
    status = response.status_code
    try:
        fields = orjson.loads(response.content)
        code, reason = int(fields["ErrorCode"]), str(fields["ErrorMessage"])
    except (KeyError, TypeError, ValueError):
        code, reason = None, response.reason or ""
    message = f"{what}: status {status}: {' '.join(reason.split())[:300]}"
    if is_transient(status):
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return ServerUnavailable(
            f"{message}; try again later", retry_after=retry_after, status=status, code=code
        )
    kind: type[V3ioError] = RequestRefused
    if status < 400:
        return RequestRefused(f"{message}; the server is elsewhere: correct the URL", status=status)
    if status == 401 or code == wire.PERMISSION_DENIED:
        kind = AuthenticationFailed
    elif code is not None and abs(code) == -wire.CONDITION_FALSE:
        kind = ConditionFalse
    elif status == 404:
        kind = NotFound
    elif "ResourceInUse" in reason or (status == 409 and code != wire.DIRECTORY_NOT_EMPTY):
        kind = AlreadyExists
    return kind(message, status=status, code=code)
