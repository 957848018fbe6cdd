"""Errors that cross actor boundaries. Each survives pickling, because Ray carries it to the caller.

ActorError
├── NotAttached      the writer does not know this feed (it was restarted): attach, then send again
├── StaleOwner       a newer monitor owns this feed: stop
├── DecodeFailed     a decoder could not read a block at all
├── DecodeAborted    records of a block did not decode, and its table does not allow to skip them
├── MonitorTooLarge  a monitor took more memory than it may: it starts afresh
├── DeliveryRefused  the sink refuses these records for good: sending them again will not help
└── SpoolError       the spool on disk
    ├── SpoolNotOpen its monitor has only begun to start: ask again
    ├── SpoolInUse   another process holds it
    ├── SpoolFull    its disk is full: what was to be written was not
    ├── NotRetained  it does not keep any more what was asked for
    └── SpoolDamaged what it holds cannot be trusted: the next to open it sets it aside
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


class MonitorTooLarge(ActorError):
    """A monitor's process took more memory than it may; started afresh, it goes on from its spool."""


class DeliveryRefused(ActorError):
    """A sink refused records for good; the message says why and what to do."""


class SpoolError(ActorError):
    """The spool directory cannot be used."""


class SpoolNotOpen(SpoolError):
    """The monitor that has it has only begun to start, or is still the standby: asking again soon helps."""


class SpoolInUse(SpoolError):
    """Another process holds the spool's lock."""


class SpoolFull(SpoolError):
    """The spool's disk is full. Nothing of what was to be written was; trying again helps when there is room."""


class NotRetained(SpoolError):
    """What was asked for is not kept any more; the message says what is."""


class SpoolDamaged(SpoolError):
    """The spool's database is damaged. It is marked as such; opening it again sets it aside and begins a new one."""
