"""What a sink is to its writer: encode batches into payloads, send payloads.

A sink is synchronous and knows nothing of actors: its writer calls :meth:`Sink.payloads` and :meth:`Sink.send` on
worker threads, one payload of a feed after the other, several feeds at once. Retrying is the writer's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from actors.batch import Batch


@dataclass(frozen=True, slots=True)
class Payload:
    """One request's worth of encoded events."""

    body: bytes
    records: int


class Sink(Protocol):
    """A destination. An exception with a true attribute ``retryable`` is transient; any other refuses for good.
    A transient one may carry ``retry_after``, in seconds."""

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        """Encode `batch`, in order. Pure: no network, and the same payloads each time."""

    def send(self, payload: Payload) -> None:
        """Make `payload` durable at the destination; returns when it is. Has a deadline of its own."""

    def close(self) -> None:
        """Release connections."""
