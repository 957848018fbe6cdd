"""The ZeroMQ PUB socket of table monitors: bound once, used by one thread.

A message is the topic id and then one frame per record; batches are split into messages of a bounded number
of frames. Like any PUB socket it drops what a subscriber does not take: beyond the high-water mark, whole
messages are lost.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import zmq

#: Seconds to wait for the publishing thread before the caller gives up on it.
PUBLISH_TIMEOUT = 60.0

#: Milliseconds that closing waits for messages that subscribers have not taken yet.
LINGER_MS = 1000


class Publisher:
    """Publishes to monitors.

    Args:
        send_hwm: messages kept for each subscriber that does not keep up; what comes on top is dropped.
        max_frames: the most records in one message.
    """

    def __init__(self, *, send_hwm: int, max_frames: int) -> None:
        self._send_hwm = send_hwm
        self._max_frames = max_frames
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kinetica-publisher")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def bind(self, host: str, port: int) -> int:
        """Bind the socket and return its port. Raises ``OSError`` if the port cannot be had."""
        return self._thread.submit(self._bind, host, port).result(PUBLISH_TIMEOUT)

    def _bind(self, host: str, port: int) -> int:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, self._send_hwm)
        self._socket.set(zmq.LINGER, LINGER_MS)
        try:
            # libzmq binds to addresses and interfaces, not to names.
            self._socket.bind(f"tcp://{socket.gethostbyname(host)}:{port or '*'}")
        except zmq.ZMQError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound: {error}"
            raise OSError(error.errno, f"monitor port {port} on {host} {reason}") from error
        return int(bytes(self._socket.get(zmq.LAST_ENDPOINT)).rsplit(b":", 1)[1].rstrip(b"\0"))

    def publish(self, messages: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        """Publish (topic id, records) pairs in order; returns when the socket has taken them."""
        if messages:
            self._thread.submit(self._publish, messages).result(PUBLISH_TIMEOUT)

    def _publish(self, messages: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        assert self._socket is not None
        # The plain send of the socket's backend: send_multipart costs ten times as much per frame.
        send = super(zmq.Socket, self._socket).send
        for topic_id, frames in messages:
            topic = topic_id.encode()
            for start in range(0, len(frames), self._max_frames):
                chunk = frames[start : start + self._max_frames]
                send(topic, zmq.SNDMORE)
                for frame in chunk[:-1]:
                    send(frame, zmq.SNDMORE)
                send(chunk[-1])

    def close(self) -> None:
        """Close the socket; waits for at most :data:`LINGER_MS`."""
        self._thread.submit(self._close).result(PUBLISH_TIMEOUT)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
