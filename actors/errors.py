"""Errors that cross actor boundaries. Each survives pickling, because Ray carries it to the caller.

ActorError
├── NotAttached      the writer does not know this feed (it was restarted): attach, then send again
├── StaleOwner       a newer monitor owns this feed: stop
├── DecodeFailed     a decoder could not read a block at all
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


class DeliveryRefused(ActorError):
    """A sink refused records for good; the message says why and what to do."""


class SpoolError(ActorError):
    """The spool directory cannot be used."""


class SpoolInUse(SpoolError):
    """Another process holds the spool's lock."""
