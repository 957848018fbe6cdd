"""How a dispatcher reaches writers and decoders: what it asks for, and how failures of decoders are reported to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from actors.block import Block, BlockId


class DecoderFailed(Exception):
    """What a transport reports when a block was not decoded, so that the writer never saw it.

    `blame` says whether the block may be the cause: a decoder died over it or refused it, other than there being
    no decoder at all. A decoder that dies takes along all blocks that were with it, each for one or more sinks:
    their reports carry the same `death`.
    """

    def __init__(self, reason: str, blame: bool, death: object = None) -> None:
        super().__init__(reason)
        self.blame = blame
        self.death = object() if death is None else death


@dataclass(frozen=True, slots=True)
class Task:
    """A block to be decoded and written.

    Attributes:
        order: what the writer keeps it in order with: the name of its feed, or of the feed's replay.
        block: the block.
        strict: whether a record that does not decode is a :class:`~actors.errors.DecodeAborted` for all of them.
        isolated: whether to decode it in a process of its own.
    """

    order: str
    block: Block
    strict: bool = False
    isolated: bool = False

    @property
    def id(self) -> BlockId:
        """The block's identity in its order."""
        return self.block.id._replace(feed=self.order)


class Transport(Protocol):
    """How a dispatcher reaches writers and decoders. Calls return at once; `done` is called later, on any thread,
    with the result or the exception."""

    def attach(self, sink: str, order: str, session: int, done: Callable[[Any], None]) -> None:
        """Attach `order` to the writer of `sink`; the result is how far it is durable there, or None."""

    def write(
        self, sink: str, task: Task, session: int, previous: BlockId | None, done: Callable[[Any], None]
    ) -> str | None:
        """Decode the block of `task` and write it; the result is a :class:`~actors.batch.Receipt`.

        Returns the name of the actor that decodes it, if one does and that is known.
        """

    def tidy(self) -> None:
        """Let go of what is not needed any more; called every few seconds, also while there is nothing to do."""
