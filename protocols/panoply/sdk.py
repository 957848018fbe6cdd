"""Panoply's SDK: records written without waiting, sent by a thread as messages to Panoply's queue, confirmed.

With the names and events of version 3.2.0 of the official SDK and its faults mended (``docs/compatibility.md``):
nothing is lost on an error or at the interpreter's exit, the buffer is bounded, and what the queue refuses comes back.
Delivery is at least once: a message whose answer was lost is sent again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocols.accumulator import Accumulator, BatchingError, Chunk, Limits
from protocols.backoff import Backoff
from protocols.batching import Batcher, Closed, DeliveryEvent, Rejection
from protocols.checks import check_number, check_timeout, check_type
from protocols.closing import Closing
from protocols.exits import EXIT_TIMEOUT, AtExit, renew_after_fork
from protocols.panoply import wire
from protocols.panoply.client import PanoplyClient
from protocols.panoply.emitter import Emitter
from protocols.panoply.errors import MessageRefused, TransientError, WriteFailed

log = logging.getLogger(__name__)

#: A message is sent when it has more characters than this, percent-encoded.
MAXSIZE = wire.MAX_ENCODED
#: Most seconds that a record waits for others to share its message.
FLUSH_TIMEOUT = 2.0
#: Most bytes of records, percent-encoded, that are not delivered yet.
BUFFER_BYTES = 64 << 20


class Written(NamedTuple):
    """A record on its way, as it stands in a message."""

    text: bytes
    size: int

    @property
    def record(self) -> dict[str, Any]:
        """The record, with its table under ``__table``."""
        record: dict[str, Any] = json.loads(self.text)
        return record


@dataclass(frozen=True)
class Request:
    """What handlers of ``send`` and ``flush`` get as ``req``; without the credentials, of which the URL is one.

    Attributes:
        host: where it is sent.
        data: the message, records as JSON with an empty line after each.
        records: how many there are.
        attempt: 1 for the first.
    """

    host: str
    data: bytes = field(repr=False)
    records: int
    attempt: int


@dataclass(frozen=True)
class Answer:
    """What handlers of ``flush`` get as ``res``."""

    status: int
    body: bytes = field(repr=False)

    def read(self) -> bytes:
        """SQS's answer, XML."""
        return self.body


class SDK(Emitter, Closing):
    """Writes records to the tables of a Panoply data source. Thread-safe; a forked process has a buffer of its own.

    A record is with Panoply when :meth:`flush` has returned. At the interpreter's exit what is buffered is sent, for up
    to `exit_timeout` seconds.

    Args:
        apikey, apisecret: of the data source, as text or ASCII bytes.
        url: base URL of a service that speaks SQS's, in place of Amazon's.
        timeout: seconds allowed to one message.
        max_message_bytes: what the queue takes at most.
        buffer_bytes: most bytes of records, percent-encoded, that are not delivered yet.
        exit_timeout: see above.

    Raises ``TypeError`` and ``ValueError``, without quoting them, for credentials that cannot be Panoply's.
    """

    def __init__(
        self,
        apikey: str | bytes,
        apisecret: str | bytes,
        *,
        url: str | None = None,
        timeout: float = 30.0,
        max_message_bytes: int = wire.MAX_MESSAGE,
        buffer_bytes: int = BUFFER_BYTES,
        exit_timeout: float = EXIT_TIMEOUT,
    ) -> None:
        self.apikey, self.apisecret = _text("apikey", apikey), _text("apisecret", apisecret)
        credentials = wire.Credentials(self.apikey, self.apisecret)
        check_type("max_message_bytes", max_message_bytes, int)
        check_number("max_message_bytes", max_message_bytes, credentials.overhead + 1)
        check_number("buffer_bytes", check_type("buffer_bytes", buffer_bytes, int), 1)
        self._exit_timeout = check_number("exit_timeout", exit_timeout)
        self._client = PanoplyClient(credentials, url, timeout=check_timeout(timeout))
        self._room = max_message_bytes - credentials.overhead
        self._limits = Limits(
            records=1_000_000, bytes=min(MAXSIZE, self._room), linger=FLUSH_TIMEOUT, buffer_bytes=buffer_bytes
        )
        self._closed = False
        self.after_fork()
        renew_after_fork(self)
        self._at_exit = AtExit(self._exit)

    def __repr__(self) -> str:
        return f"SDK({self._client.host!r}, pending={self.pending})"

    def after_fork(self) -> None:
        """Begin anew with nothing buffered: the parent sends what it has."""
        self._client.after_fork()
        self._answer: Answer | None = None
        queue = Accumulator[Written](self._limits, lambda written: written.size)
        self._batcher = Batcher(
            self._send, queue, Backoff(floor=0.0).delay, f"Panoply SDK of {self._client.host}"
        )
        self._batcher.on("send", self._on_send)
        self._batcher.on("flush", self._on_flush)
        self._batcher.on("error", self._on_error)

    @property
    def qurl(self) -> str:
        """Address of the queue, which is as secret as the credentials. Assign to it to send elsewhere from now on.

        Raises ``ValueError`` for what is no HTTP address.
        """
        return self._client.address

    @qurl.setter
    def qurl(self, address: str) -> None:
        self._client.address = check_type("qurl", address, str)

    def write(self, table: str, record: Mapping[str, Any], timeout: float = 0.0) -> None:
        """Add a record, which is encoded at the call; returns at once, or after up to `timeout` seconds.

        Raises:
            TypeError: the table is no text, the record no mapping, or a value has no form in JSON.
            ValueError: the table has no name; NaN, an infinity, half of a surrogate pair or a reference to itself in
                the record, or it is nested too deep.
            RecordTooLarge: the record is larger than a message may be; it is a ``ValueError`` too.
            BufferFull: there is no room, as the queue is slower than its callers; write it again later.
            Closed: after :meth:`close`.
        """
        self._open()
        if not check_type("table", table, str):
            raise ValueError("the table has no name")
        if not isinstance(record, Mapping):
            raise TypeError(f"a record is a dict, not a {type(record).__name__}")
        text = wire.encode_record(table, record)
        size = wire.encoded_length(text)
        if size > self._limits.bytes and len(text) <= self._room:
            size = self._limits.bytes  # it has a message of its own
        self._batcher.put([Written(text, size)], timeout)

    @property
    def pending(self) -> int:
        """Records written that the queue has not confirmed or refused."""
        return self._batcher.pending

    @property
    def problem(self) -> str | None:
        """Why the latest message failed, in one line; None if it did not."""
        return self._batcher.problem

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that was written is with Panoply.

        Raises:
            NotDelivered: it is not, `timeout` seconds later; it is still being tried.
            RecordsRejected: since the last flush, records were refused for good; all others are there.
        """
        self._open()
        self._batcher.flush(timeout)

    def close(self, timeout: float = 30.0) -> None:
        """Flush, then end; what is not delivered `timeout` seconds later is given up. Raises as :meth:`flush`."""
        check_number("timeout", timeout)
        if self._closed:
            return
        self._closed = True
        self._at_exit.cancel()
        try:
            self._batcher.close(timeout)
        finally:
            self._client.close()

    def _open(self) -> None:
        if self._closed:
            raise Closed("this SDK is closed; make another")

    def _exit(self) -> None:
        try:
            self.close(self._exit_timeout)
        except BatchingError as error:
            log.error("%r, at exit: %s", self, error)

    def _send(self, chunk: Chunk[Written]) -> list[Rejection[Written]]:
        return self._deliver(list(enumerate(chunk.records, chunk.first)))

    def _deliver(self, numbered: list[tuple[int, Written]]) -> list[Rejection[Written]]:
        """Send records as a message; one that is refused is sent in halves, down to the records to blame."""
        try:
            body = self._client.send(b"".join(written.text for _, written in numbered))
        except MessageRefused as error:
            if error.refuses_all:  # credentials or the queue, which somebody may be mending
                raise TransientError(str(error)) from None
            if len(numbered) == 1:
                return [Rejection(*numbered[0], str(error))]
            middle = len(numbered) // 2
            return self._deliver(numbered[:middle]) + self._deliver(numbered[middle:])
        self._answer = Answer(200, body)
        return []

    def _request(self, event: DeliveryEvent[Written]) -> Request:
        data = b"".join(written.text for written in event.records)
        return Request(self._client.host, data, len(event.records), event.attempt)

    def _on_send(self, event: DeliveryEvent[Written]) -> None:
        if self.listens("send"):
            self.fire("send", {"req": self._request(event)})

    def _on_flush(self, event: DeliveryEvent[Written]) -> None:
        if self.listens("flush"):
            self.fire("flush", {"req": self._request(event), "res": self._answer})

    def _on_error(self, event: DeliveryEvent[Written]) -> None:
        if not self.listens("error"):
            return
        reasons = [rejection.reason for rejection in event.rejections]
        text = reasons[0] if reasons else str(event.error)
        back = [rejection.record.record for rejection in event.rejections]
        records = back or [written.record for written in event.records]
        self.fire("error", WriteFailed(text, records, retryable=not back, attempt=event.attempt))


def _text(what: str, value: str | bytes) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("ascii")
        except UnicodeDecodeError:
            raise ValueError(f"the {what} is not one of Panoply's") from None
    if not isinstance(value, str):
        raise TypeError(f"the {what} is a str or bytes, not a {type(value).__name__}")
    return value
