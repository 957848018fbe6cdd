"""The event stream of one table: one ZeroMQ SUB socket for all its table monitors, made for a thread that drains.

ZeroMQ's PUB/SUB loses what its queues can't hold, in mid-stream and without a sign, so the draining thread calls
:meth:`Subscription.receive` in a loop and does nothing slow. That thread should have the process nearly to itself:
every frame releases and takes the interpreter lock, so one busy Python thread beside it costs at least three
quarters of the rate (measured on two shared cores).

Changes of the connection come in line with the data, so that the caller can tell where something may be missing.

Not here: creating the monitors (``client.py``), and what the frames mean.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import socket
import struct
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

import fastavro
import zmq

from protocols.kinetica.types import TableType

#: Messages that ZeroMQ may hold for us; one message is one operation, of one record or thousands. The default of
#: 1,000 is 2 ms of single-row inserts at full speed. 100,000 rides out a fifth of a second of that; they took 90 MiB.
#: It must be finite: without a mark a stalled reader lets the process grow until it is killed.
RECEIVE_MARK = 100_000

#: Bytes of kernel buffer asked for, which hold what comes while ZeroMQ's own thread does not run.
KERNEL_BUFFER = 4 << 20

#: Where :meth:`Subscription.receive` stops: at the first end of a message after so many records or bytes. What it
#: returns is committed together, which costs a wait for the disk: more records make that cheaper.
MAX_FRAMES = 60_000
MAX_BYTES = 8 << 20

#: What a message costs, in records: many objects alive at once make Python's garbage collector slow.
MESSAGE_FRAMES = 6

#: Seconds for the TCP connection, and then for the ZeroMQ handshake.
CONNECT_TIMEOUT = 5.0

#: Seconds between pings, and without any sign of life before the connection is given up.
HEARTBEAT_INTERVAL = 5.0
HEARTBEAT_TIMEOUT = 15.0

#: Seconds before a lost connection is tried again, at first and at most (ZeroMQ doubles and spreads them).
RECONNECT_INTERVAL = 0.1
RECONNECT_MAX = 2.0

#: Seconds after which we dial anew ourselves: after a disconnection that ZeroMQ does not follow with an attempt of
#: its own (it gives up for ever on a peer that breaks its protocol, such as a proxy's error page, observed with
#: libzmq 4.3.5), and after a connection whose handshake neither succeeds nor fails.
REDIAL_LOST = 1.0
REDIAL_MUTE = 2 * CONNECT_TIMEOUT

_NOBLOCK = int(zmq.NOBLOCK)
_links = itertools.count()
_EVENT = struct.Struct("=HI")
_WATCHED = (
    zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
)


class Message(NamedTuple):
    """One operation: the topic id it was published under and its records, one frame of bare Avro each."""

    topic: str
    frames: list[bytes]


class Link(Enum):
    """A change of the connection.

    ``CONNECTED`` follows the handshake, ``DISCONNECTED`` the loss of a connection that had one (what is published
    from then on is lost), ``RETRIED`` each failed attempt.
    """

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RETRIED = "retried"


class Subscription:
    """A subscription to the topics of one table. Use it from one thread; only :meth:`wake` may come from others.

    Args:
        host, port: where the server publishes (``KineticaClient.monitor_host()`` and ``monitor_port()``).
        topics: ids of the table's monitors, compared exactly although ZeroMQ matches prefixes.
        exact_topics: find the boundaries of messages by looking for topic ids among the frames, which is up to four
            times as fast, instead of asking ZeroMQ after every frame. Right only while
            :func:`topics_are_distinguishable` says so; the attribute may be changed at any time.
        receive_mark: messages that may wait in ZeroMQ; default :data:`RECEIVE_MARK`.

    The constructor begins to connect and returns; see :meth:`wait_connected`. Raises ``ValueError`` for arguments
    that can't be right.
    """

    def __init__(
        self,
        host: str,
        port: int,
        topics: Collection[str],
        *,
        exact_topics: bool = False,
        receive_mark: int = RECEIVE_MARK,
    ) -> None:
        if isinstance(topics, str) or not topics or not all(topics):
            raise ValueError(
                "a subscription needs topic ids, none of them empty: that would match every table's"
            )
        if receive_mark < 1:
            raise ValueError("receive_mark is a positive number of messages")
        if not host or not 0 < port < 65536:
            raise ValueError(f"no address to subscribe to: host {host!r}, port {port!r}")
        self.exact_topics = exact_topics
        self.connected = False
        #: Whether the last :meth:`receive` left nothing waiting.
        self.emptied = False
        self._topics = {topic.encode(): topic for topic in topics}
        self._url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._carry: bytes | None = None  # a topic frame whose message is the next to be read
        self._links: list[Link] = []
        self._redial_at: float | None = None
        context: zmq.Context[zmq.Socket[bytes]] = (
            zmq.Context.instance()
        )  # one for all of a process, with one thread for input and output
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._wake_receiver.setblocking(False)
        self._socket = context.socket(zmq.SUB)
        for option, value in _options(receive_mark, ipv6=":" in host).items():
            self._socket.setsockopt(option, value)
        for topic in self._topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        # Before connecting: an event that comes with nobody listening is lost, and the official client, which
        # attaches its monitor afterwards, then waits for it for ever.
        link = f"inproc://link-{next(_links)}"
        self._socket.monitor(link, _WATCHED)
        self._monitor = context.socket(zmq.PAIR)
        # The event of a full queue would block ZeroMQ's own thread, and `close` with it. Events come a few a second.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(link)
        self._link_poller, self._poller = zmq.Poller(), zmq.Poller()
        for poller in (self._link_poller, self._poller):
            poller.register(self._monitor, zmq.POLLIN)
            poller.register(self._wake_receiver.fileno(), zmq.POLLIN)
        self._poller.register(self._socket, zmq.POLLIN)
        try:
            self._socket.connect(self._url)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"no address to subscribe to: {self._url}: {error}") from None

    def wait_connected(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the handshake; False if it did not come, or on :meth:`wake`.

        The server acts on the subscription a moment later. Nothing says when, so take a baseline of the table
        after the first records, or fetch from before this call what may have been missed.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._watch()
            left = deadline - time.monotonic()
            if self.connected or left <= 0:
                return self.connected
            if self._wait(self._link_poller, left):
                return False

    def receive(self, timeout_ms: int) -> list[Message | Link]:
        """Return whole messages that have arrived, and changes of the connection; wait if there are none.

        It waits up to `timeout_ms` milliseconds, less on :meth:`wake`, and may return nothing. It stops at the
        first end of a message after :data:`MAX_FRAMES` records or :data:`MAX_BYTES` bytes.

        A change stands before every message that came over a connection made after it. Messages of the
        connection before may follow it too, if they were still waiting: what was lost lies somewhere after a
        ``DISCONNECTED``, and before the end of the first call that follows ``CONNECTED`` and returns no message.
        """
        messages = self._drain()
        # After draining, because then an event is here for any new connection that has a message in the list.
        self._watch()
        if not messages and not self._links and not self._wait(self._poller, timeout_ms / 1000):
            messages = self._drain()
            self._watch()
        links, self._links = self._links, []
        return [*links, *messages]

    def add(self, topic: str) -> None:
        """Receive `topic` too. The server acts on it a moment later; see :func:`topics_are_distinguishable` again."""
        self._topics[topic.encode()] = topic
        self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())

    def drop(self, topic: str) -> None:
        """Receive `topic` no more. Messages of it that have arrived may still be given out."""
        self._socket.setsockopt(zmq.UNSUBSCRIBE, topic.encode())

    def wake(self) -> None:
        """Make a waiting :meth:`receive` return soon. May be called from any thread, also after :meth:`close`."""
        with contextlib.suppress(OSError):  # closed, or full of earlier calls, which serves as well
            self._wake_sender.send(b"\0")

    def close(self) -> None:
        """Close the sockets at once. What was not yet received is dropped. May be repeated."""
        if not self._socket.closed:
            # While our end is open: an event that finds it closed would block for ever.
            self._socket.monitor(None, 0)
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._wake_sender.close()
        self._wake_receiver.close()

    def _drain(self) -> list[Message | Link]:
        """The whole messages that are here, up to the bounds. ZeroMQ delivers a message whole or not at all."""
        messages: list[Message | Link] = []
        self.emptied = True
        with contextlib.suppress(zmq.Again):
            if self.exact_topics:
                self._drain_by_topic(messages)
            else:
                self._drain_by_more(messages)
            self.emptied = False
        return messages

    # How to receive. benchmarks/receive.py, messages of 1,000 frames of 55 bytes (of one), on two shared cores: this
    # loop by topic, with the spool's commits, 1.64 (0.37) million records/s; recv_multipart, which keeps nothing,
    # 0.77 (0.39). Asking RCVMORE costs more than receiving does, and libzmq has no cheaper way to ask. Tried and not
    # taken: the backend's getsockopt, slower than `.more`; C-level loops, `list.extend(map(recv, ...))`, which gain
    # little and can't stop at the end of a message; and a receive mark that follows the size of messages (set while
    # connected, libzmq 4.3.5 may stop for ever: the writer learns of reads only every half mark).

    def _drain_by_more(self, messages: list[Message | Link]) -> None:
        recv = self._socket.recv
        frames_left, bytes_left = MAX_FRAMES, MAX_BYTES
        while frames_left > 0 and bytes_left > 0:
            if self._carry is None:
                head = recv(_NOBLOCK, False)
                topic, more = head.bytes, head.more
            else:
                topic, more = self._carry, bool(self._socket.getsockopt(zmq.RCVMORE))
                self._carry = None
            frames: list[bytes] = []
            append = frames.append
            while more:
                frame = recv(_NOBLOCK, False)
                append(frame.bytes)
                more = frame.more
            if topic in self._topics:
                messages.append(Message(self._topics[topic], frames))
            frames_left -= len(frames) + MESSAGE_FRAMES
            bytes_left -= sum(map(len, frames))

    def _drain_by_topic(self, messages: list[Message | Link]) -> None:
        recv, topics = self._socket.recv, self._topics
        lengths = {len(topic) for topic in topics}  # cheaper to look up than the hash of every frame
        frames_left, bytes_left = MAX_FRAMES, MAX_BYTES
        frame = recv(_NOBLOCK) if self._carry is None else self._carry
        self._carry = None
        while frame not in topics:  # another table's topic that begins with one of ours
            while self._socket.getsockopt(zmq.RCVMORE):
                recv(_NOBLOCK)
            frames_left -= 1
            if frames_left == 0:
                return
            frame = recv(_NOBLOCK)
        while frames_left > 0 and bytes_left > 0:
            frames: list[bytes] = []
            append = frames.append
            messages.append(Message(topics[frame], frames))
            while True:
                frame = recv(_NOBLOCK)
                if len(frame) in lengths and frame in topics:
                    break
                append(frame)
            frames_left -= len(frames) + MESSAGE_FRAMES
            bytes_left -= sum(map(len, frames))
        self._carry = frame

    def _wait(self, poller: zmq.Poller, timeout: float) -> bool:
        """Wait until `poller` has something; True if it was a wake."""
        if self._redial_at is not None and time.monotonic() >= self._redial_at:
            self._redial_at = None
            with contextlib.suppress(zmq.ZMQError):  # ZeroMQ has forgotten the address
                self._socket.disconnect(self._url)
            self._socket.connect(self._url)
        if self._wake_receiver.fileno() not in dict(poller.poll(math.ceil(max(timeout, 0) * 1000))):
            return False
        with contextlib.suppress(BlockingIOError):
            self._wake_receiver.recv(4096)
        return True

    def _watch(self) -> None:
        """Note the changes of the connection that ZeroMQ has reported."""
        with contextlib.suppress(zmq.Again):
            while True:
                event, _ = _EVENT.unpack(self._monitor.recv_multipart(_NOBLOCK)[0])
                if event == zmq.EVENT_CONNECTED:
                    self._redial_at = time.monotonic() + REDIAL_MUTE
                elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._redial_at, self.connected = None, True
                    self._links.append(Link.CONNECTED)
                elif event == zmq.EVENT_CONNECT_RETRIED:
                    self._redial_at = None
                    self._links.append(Link.RETRIED)
                else:
                    self._redial_at = time.monotonic() + REDIAL_LOST
                    if self.connected:
                        self._links.append(Link.DISCONNECTED)
                    self.connected = False


def topics_are_distinguishable(
    topics: Collection[str], types: Iterable[TableType], others: Iterable[str] = ()
) -> bool:
    """Whether a frame that equals a topic id can only be the start of a message.

    It is when no topic id is a complete encoding of a record of any of `types`, the types of all records that these
    topics publish (``wire.COUNT_SCHEMA`` for updates and deletes), and when no topic in `others`, those of the
    server's other monitors, begins with one of ours: ZeroMQ would deliver that one as well. Ask again whenever the
    table's type changes.
    """
    ours = set(topics)
    if any(other.startswith(tuple(ours)) for other in others if other not in ours):
        return False
    return not any(_is_record(topic.encode(), table_type) for table_type in types for topic in ours)


def _is_record(data: bytes, table_type: TableType) -> bool:
    # Strings as bytes: a publisher might send what is no UTF-8, and it would still be received.
    fields = [
        {"name": column.name, "type": replace(column, base=base).avro}
        for column in table_type.columns
        for base in ["bytes" if column.base == "string" else column.base]
    ]
    source = io.BytesIO(data)
    try:
        fastavro.schemaless_reader(source, {"type": "record", "name": "row", "fields": fields}, None)
    except (
        Exception
    ):  # fastavro raises EOFError, IndexError, OverflowError, ...: all say that it is no record
        return False
    return source.tell() == len(data)


def _options(receive_mark: int, *, ipv6: bool) -> dict[int, int]:
    options: dict[int, int] = {
        zmq.LINGER: 0,
        zmq.RCVHWM: receive_mark,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: 30,
        zmq.TCP_KEEPALIVE_INTVL: 10,
        zmq.TCP_KEEPALIVE_CNT: 3,
        zmq.HEARTBEAT_IVL: _ms(HEARTBEAT_INTERVAL),
        zmq.HEARTBEAT_TIMEOUT: _ms(HEARTBEAT_TIMEOUT),
        zmq.HEARTBEAT_TTL: _ms(HEARTBEAT_TIMEOUT),
        zmq.CONNECT_TIMEOUT: _ms(CONNECT_TIMEOUT),
        zmq.HANDSHAKE_IVL: _ms(CONNECT_TIMEOUT),
        zmq.RECONNECT_IVL: _ms(RECONNECT_INTERVAL),
        zmq.RECONNECT_IVL_MAX: _ms(RECONNECT_MAX),
        zmq.IPV6: int(ipv6),
    }
    # Naming a size turns off the kernel's own sizing, which may go higher than the largest that it lets us name.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        if probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= KERNEL_BUFFER:
            options[zmq.RCVBUF] = KERNEL_BUFFER
    return options


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
