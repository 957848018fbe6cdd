"""What a monitor needs to know, as plain values that travel to its process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.monitor.grouping import BlockLimits


class SourceSettings(Protocol):
    """What a source of changes needs to know of its table; the attributes are those of :class:`MonitorSettings`."""

    @property
    def table(self) -> str: ...
    @property
    def events(self) -> tuple[str, ...]: ...
    @property
    def source(self) -> Mapping[str, Any]: ...
    @property
    def monitor_port(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The monitor that had the table before, with another spool: its last epoch, and its topics.

    `heard` is when it surely still received, in seconds since 1970. `spool` is where that was if the table was given
    another one, when all of it had been delivered; None: the host is out of reach.
    """

    host: str
    epoch: int
    heard: float
    topics: tuple[str, ...]
    spool: str | None = None

    @property
    def cause(self) -> str:
        """Why it is the monitor no more."""
        return f"host {self.host} is gone" if self.spool is None else "the table was given another spool"

    @property
    def note(self) -> str:
        """Where what it received is."""
        if self.spool is None:
            return f"what the spool on {self.host} has of it comes when it is back"
        return f"what was received before was delivered from {self.spool} on host {self.host}"


@dataclass(frozen=True, slots=True)
class Drain:
    """What makes a monitor a drainer: it receives nothing and delivers what its spool holds.

    Attributes:
        host: where the spool is.
        absent_sinks: sinks of the spool that the pipeline has no more; what they do not have is kept.
        last_epoch: what is of later epochs is kept, as the table's monitor elsewhere has received it too.
    """

    host: str
    absent_sinks: tuple[str, ...] = ()
    last_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """One table's monitor.

    Attributes:
        pipeline: the pipeline's name, first part of every origin.
        table: the table's name, and that of its insert feed.
        events: which of ``insert``, ``update``, ``delete`` to follow.
        sinks: names of the sinks that every feed goes to.
        source: what the table's source is made from; of Kinetica keyword arguments of
            :class:`protocols.kinetica.client.KineticaClient`; holds credentials.
        monitor_port: port of the table-monitor publisher; None asks the server.
        spool: the spool's directory; ``${NAME}`` in it is an environment variable of the monitor's host.
        max_bytes: payload bytes in the spool at which receiving pauses.
        min_free: free bytes of the spool's file system below which receiving pauses.
        when_full: what follows then: ``pause``, or ``drop_oldest`` undelivered blocks and go on.
        retain: seconds for which the spool keeps blocks that every sink has.
        new_sinks: where a sink that is new to the table begins: at the ``oldest`` block here, or behind the ``newest``.
        limits: when a block is closed.
        window_bytes: unacknowledged payload bytes per feed and sink.
        max_memory: bytes of its own memory above which the monitor's process starts afresh.
        on_decode_failure: ``skip`` sends records that do not decode to the dead letters, ``abort`` stops at them.
        contract: what follows when the table is altered: ``evolve``, ``freeze`` or ``discard_columns``.
        ambiguous: what becomes of records that may be of the type before or after: ``reject``, ``old`` or ``new``.
        increasing_column: a column whose values increase from row to row, to read rows from the table that are
            missing or ambiguous.
        start: what of a table comes first: changes from ``now`` on, or its rows (``snapshot``) and then the changes.
        audit: seconds between audits of the table's size.
        drain: of a drainer, what it is to do.
        standby: whether the table has a standby.
        kind: of the source, see ``sources.py``.
    """

    pipeline: str
    table: str
    events: tuple[str, ...]
    sinks: tuple[str, ...]
    source: Mapping[str, Any] = field(repr=False)
    monitor_port: int | None
    spool: str
    max_bytes: int
    min_free: int
    limits: BlockLimits
    window_bytes: int
    on_decode_failure: str = "skip"
    contract: str = "evolve"
    ambiguous: str = "reject"
    increasing_column: str | None = None
    when_full: str = "pause"
    retain: float = 0.0
    new_sinks: str = "oldest"
    max_memory: int = 1 << 30
    start: str = "now"
    audit: float = 5.0
    drain: Drain | None = None
    standby: bool = False
    kind: str = "kinetica"
