"""What a sink is to its writer: encode batches into payloads, send payloads.

A sink is synchronous and knows nothing of actors: its writer calls :meth:`Sink.payloads` and :meth:`Sink.send` on
worker threads, one payload of a feed after the other, several feeds at once. Retrying is the writer's work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from actors.batch import Batch, Rejected


@dataclass(frozen=True, slots=True)
class Payload:
    """One request's worth of encoded events.

    Attributes:
        body: what :meth:`Sink.send` sends; bytes, or what else the sink understands.
        records: how many events are in it; a payload of none is for its rejects only.
        rejects: records that the sink cannot take, now or ever, each with its reason; without their frames, which
            a sink never sees (``b""``). They become dead letters, and the others go on.
        offsets: of the events, in any order; only asked of the rest in :class:`PartlySent`. If that is refused in turn,
            these alone are sent in halves; None: all of the payload, for want of knowing what was taken.
    """

    body: Any
    records: int
    rejects: tuple[Rejected, ...] = ()
    offsets: Sequence[int] | None = None


class PartlySent(Exception):
    """A destination took some of a payload's events, and the others not yet: these are sent again, after a pause.

    Attributes:
        rest: the events to send again, in order, as a payload without rejects.
        rejects: events that it will never take.
        retry_after: seconds that the destination asked to wait, or None.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        rest: Payload,
        rejects: tuple[Rejected, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, rest, rejects, retry_after)
        self.rest = rest
        self.rejects = rejects
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


def is_transient(error: BaseException) -> bool:
    """Whether what failed so may succeed later."""
    return bool(getattr(error, "retryable", isinstance(error, (ConnectionError, TimeoutError))))


class TimedOut(Exception):
    """A destination did not answer in time; the payload may have been taken."""

    retryable = True


class NotWritable(Exception):
    """A file or folder cannot be written now: no space, no permission, or held by another process."""

    retryable = True


class Sink(Protocol):
    """A destination; made with the pipeline's name and the settings of the pipeline file as keyword arguments.

    An exception of :meth:`send` with a true attribute ``retryable`` is transient, and may carry ``retry_after``, in
    seconds; :class:`PartlySent` is one. So are Python's own ``ConnectionError`` and ``TimeoutError``. Any other refuses
    for good: a record of the payload, to be found by sending halves, or with a true attribute ``refuses_all``
    everything, as for want of permission.

    Two attributes are optional: `timeout`, seconds that a send should take at most (one that takes twice as long is
    taken for lost, and the payload sent again); and `takes_puts`, true if it takes events of ``tablecast.writer`` too:
    batches whose rows are :data:`~actors.batch.EVENT_FIELD`, as :func:`~actors.writer.encode.encode_batch` reads them.
    """

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        """Encode `batch` for ``batch.stream``, in order: each payload has, or rejects, the rows that follow.

        Pure: no network, and the same payloads each time.
        """

    def send(self, payload: Payload) -> None:
        """Make `payload` durable at the destination; returns when it is. Has a deadline of its own."""

    def close(self) -> None:
        """Release connections."""


@runtime_checkable
class RollingSink(Sink, Protocol):
    """A sink that makes several blocks of a feed durable at once, because each time is dear: a file, a commit.

    Its writer calls :meth:`rolled` in place of :meth:`Sink.payloads`. It holds blocks of a feed back until the
    first has waited `linger` seconds, or they fill half of their sender's window: an acknowledgement means durable,
    so whoever waited for more would wait for itself. Puts are not held back: their sender has one block under way. With
    a `linger` of 0 nothing is: blocks that come while a request is under way share the next.

    Attributes:
        linger: seconds that a block may be held back.
        hold_bytes: most bytes, as received, to hold back of one feed; half of a window.
    """

    linger: float
    hold_bytes: int

    def rolled(self, batches: Sequence[Batch]) -> Iterator[Payload]:
        """Encode consecutive batches of one feed, as :meth:`Sink.payloads` does one."""
