"""How a caller on the cluster reaches a sink's writer: by its name, again after each loss."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.batch import Batch, Receipt
from actors.block import BlockId
from actors.errors import DeliveryRefused, NotAttached
from actors.names import NAMESPACE, writer_name
from actors.writer.puts import WriterAway
from actors.writer.reorder import Owner

#: Seconds allowed to a writer to take up a caller. A write takes as long as the sink does.
ATTACH_TIMEOUT = 30.0

#: Seconds between looks at whether the caller has given up.
_LOOK = 1.0


class RayTransport:
    """A :class:`~actors.writer.puts.Transport` to the writer of `sink`."""

    def __init__(self, pipeline: str, sink: str) -> None:
        self.stopping = threading.Event()
        self._name = writer_name(pipeline, sink)
        self._handle: Any = None

    def attach(self, feed: str, owner: Owner) -> tuple[int, int] | None:
        durable: tuple[int, int] | None = self._call(ATTACH_TIMEOUT, "attach", feed, owner)
        return durable

    def write(
        self, owner: Owner, block: BlockId, previous: BlockId | None, batches: Sequence[Batch]
    ) -> Receipt:
        try:
            receipt: Receipt = self._call(None, "write", owner, block, previous, list(batches))
        except DeliveryRefused as error:
            # Of the sink, not of these events: they wait until somebody mends it.
            raise WriterAway(str(error)) from error
        return receipt

    def leave(self, feed: str) -> None:
        """Tell the writer, if it is there, to forget the caller."""
        if self._handle is not None and ray.is_initialized():
            with contextlib.suppress(RayActorError):
                self._handle.leave.remote(feed)

    def _call(self, timeout: float | None, method: str, *arguments: Any) -> Any:
        if not ray.is_initialized():  # any call would start a cluster
            raise WriterAway("this process has left its Ray cluster; connect to it again")
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            if self._handle is None:
                self._handle = ray.get_actor(self._name, NAMESPACE)
            answer = getattr(self._handle, method).remote(*arguments)
            while not ray.wait([answer], timeout=_LOOK)[0]:
                late = deadline is not None and time.monotonic() > deadline
                if late or self.stopping.is_set():
                    raise WriterAway(f"{self._name} has not answered in time")
            return ray.get(answer)
        except RayTaskError as error:  # its text is a whole traceback; the cause is what the writer raised
            if isinstance(error.cause, NotAttached):
                raise WriterAway(f"{self._name} was restarted") from error
            raise error.cause from None
        except (ValueError, RayError) as error:
            self._handle = None
            raise WriterAway(f"{self._name} is not running; waiting for it") from error
