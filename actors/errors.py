"""Errors that cross actor boundaries. Each survives pickling, because Ray carries it to the caller.

ActorError
├── NotAttached      the writer does not know this feed (it was restarted): attach, then send again
├── StaleOwner       a newer monitor owns this feed: stop
├── DecodeFailed     a decoder could not read a block at all
├── DecodeAborted    records of a block did not decode, and its table does not allow to skip them
├── DeliveryRefused  the sink refuses these records for good: sending them again will not help
└── SpoolError       the spool on disk
    └── SpoolInUse   another process holds it
"""

from __future__ import annotations


class ActorError(Exception):
    """Base of what actors raise on purpose."""


class NotAttached(ActorError):
    """A writer got a block of a feed that nobody attached since it started, or not of the attached owner."""


class StaleOwner(ActorError):
    """A call carried an owner token older than one already seen for the feed."""


class DecodeFailed(ActorError):
    """A block could not be decoded at all; single records that do not decode are rejects, not errors."""


class DecodeAborted(ActorError):
    """Records of a block did not decode, and ``on_decode_failure: abort`` forbids to go on without them.

    Attributes:
        offset: of the first of them.
        count: how many there are.
    """

    def __init__(self, reason: str, offset: int = 0, count: int = 1) -> None:
        super().__init__(reason, offset, count)
        self.offset = offset
        self.count = count

    def __str__(self) -> str:
        return str(self.args[0])


class DeliveryRefused(ActorError):
    """A sink refused records for good; the message says why and what to do."""


class SpoolError(ActorError):
    """The spool directory cannot be used."""


class SpoolInUse(SpoolError):
    """Another process holds the spool's lock."""
