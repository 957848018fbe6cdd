"""What a monitor needs to know, as plain values that travel to its process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.monitor.grouping import BlockLimits


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """One table's monitor.

    Attributes:
        pipeline: the pipeline's name, first part of every origin.
        table: the table's name, and that of its insert feed.
        events: which of ``insert``, ``update``, ``delete`` to follow.
        sinks: names of the sinks that every feed goes to.
        source: keyword arguments of :class:`protocols.kinetica.client.KineticaClient`; holds credentials.
        monitor_port: port of the table-monitor publisher; None asks the server.
        spool: the spool's directory.
        max_bytes: payload bytes in the spool at which receiving pauses.
        min_free: free bytes of the spool's file system below which receiving pauses.
        limits: when a block is closed.
        window_bytes: unacknowledged payload bytes per feed and sink.
        on_decode_failure: ``skip`` sends records that do not decode to the dead letters, ``abort`` stops at them.
        contract: what follows when the table is altered: ``evolve``, ``freeze`` or ``discard_columns``.
        ambiguous: what becomes of records that may be of the type before or after: ``reject``, ``old`` or ``new``.
        increasing_column: a column whose values identify rows, to read ambiguous ones from the table again.
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
