"""The keys of the pipeline file about spools and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cluster.config.types import (
    GIB,
    MIB,
    Count,
    Duration,
    FilePath,
    Kind,
    LargeSize,
    Seconds,
    Section,
    Size,
)


class Spool(Section):
    """The monitors' durable logs on local disk."""

    path: FilePath = Field(
        default=Path("spool"),
        validate_default=True,
        description="Folder of the logs on the host of each monitor, relative to the pipeline file's folder. "
        "`$${NAME}` is an environment variable of that host's Ray.",
    )
    max_bytes: LargeSize = Field(default=10 * GIB, description="Most bytes that one table's log may take.")
    min_free: Size = Field(default=GIB, description="Bytes of the file system to leave free.")
    when_full: Annotated[Literal["pause", "drop_oldest"], Kind("pause or drop_oldest")] = Field(
        default="pause",
        description="At either bound: stop receiving until there is room again, which leaves a gap; or delete the "
        "oldest changes that are not delivered, which are counted as lost.",
    )
    retain: Duration = Field(
        default=0.0,
        description="How long changes are kept after their receipt although every sink has them, for `tablecast "
        "rewind`, such as `10min`; less when they fill half of `max_bytes`.",
    )
    new_sinks: Annotated[Literal["oldest", "newest"], Kind("oldest or newest")] = Field(
        default="oldest",
        description="Where a sink that a running table gets later begins: with the oldest change that is kept, or "
        "with those to come.",
    )


class BlockTuning(Section):
    """When an open block is closed and sent on: at whichever bound is reached first."""

    records: Count = Field(default=20_000, description="Most records in a block.")
    bytes: Annotated[Size, Field(ge=1, le=GIB)] = Field(
        default=MIB, description="Most bytes of records in it."
    )
    linger_ms: Annotated[Count, Kind("milliseconds"), Field(le=60_000)] = Field(
        default=50, description="How long a block may wait for more records, in milliseconds."
    )


class Tuning(Section):
    """Sizes that rarely need a change."""

    block: BlockTuning = Field(default=BlockTuning(), description="When a block is closed and sent on.")
    window_bytes: Annotated[Size, Field(ge=1)] = Field(
        default=16 * MIB,
        description="Most bytes of a table on the way to one sink, not yet acknowledged.",
    )
    audit_seconds: Annotated[Seconds, Field(le=3600)] = Field(
        default=5.0, description="Time between two audits of a table's size, in seconds."
    )
    monitor_memory: Annotated[Size, Field(ge=256 * MIB)] = Field(
        default=1024 * MIB,
        description="Memory of its own that a monitor may take; above it, it starts afresh and catches up.",
    )
    unresponsive: Seconds = Field(
        default=60.0,
        description="How long an actor may leave a question unanswered before it is ended and started anew, in "
        "seconds. On a busy machine answers take seconds, and ending a busy actor only makes it busier.",
    )
