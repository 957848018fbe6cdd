"""What the keys of a status mean: the models of which ``docs/status.schema.json`` is made.

``status.py`` and the actors make statuses as plain dicts. Tests validate those of running pipelines against the
models, which forbid any key that is not described here; the published schema allows more, so that who validates with
it is not troubled when a key is added. A new key is one line here, and then
``python -m cluster.watch.status_schema > docs/status.schema.json``.

Times are seconds since 1970, durations seconds, sizes bytes, rates per second over the last 5 s.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0)]
Time = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A mapping of a status."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Host(Part):
    name: str
    alive: bool = Field(description="Whether a node of the cluster runs on it.")
    searched: bool = Field(description="Whether it was looked at for spools.")
    tables: list[str] = Field(description="Tables whose spools live there; a second place as `NAME~standby`.")
    problem: str | None = Field(description="Why its spools could not be looked at.")


class Aborted(Part):
    origin: str = Field(description="The first record that stops the table: pipeline/feed/epoch/offset.")
    reason: str
    records: Count = Field(description="Records of its block that did not decode.")


class LaneAbort(Part):
    block: tuple[str, int, int] = Field(
        description="Feed, epoch and first offset of the block.", strict=False
    )
    offset: Count
    reason: str
    count: Count


class Account(Part):
    """received = delivered + filtered + dead_letters + dropped + pending + unexplained."""

    sink: str
    feed: str
    received: Count
    delivered: Count
    filtered: Count
    dead_letters: Count
    dropped: Count
    waiting: Count = Field(description="Records still to be sent.")
    bytes: Count = Field(description="Their payload.")
    again: Count = Field(description="Those of `waiting` that the sink had before a rewind.")
    pending: int = Field(description="Records that the sink has never had.")
    unexplained: int = Field(description="Always 0.")


class Lane(Part):
    """A feed on its way to a sink."""

    feed: str
    sink: str
    state: str = Field(description="`detached`, `attaching`, `open`, `parked` or `aborted`.")
    problem: str | None
    pending_records: Count
    pending_bytes: Count
    lag_seconds: Number = Field(description="Age of the oldest record that the sink does not have; 0: none.")
    in_flight: Count = Field(description="Blocks sent and not yet acknowledged.")
    paused: bool = Field(False, description="Whether it sends nothing more until it is resumed.")
    aborted: LaneAbort | None
    account: Account | None


class Gap(Part):
    """A stretch of the source that may not have been received."""

    number: int
    cause: str
    began: Time
    ended: Time | None = Field(description="Receiving again.")
    state: Literal["open", "healing", "healed", "unhealed"]
    recovered: Count = Field(description="Rows fetched from the table.")
    missing: int | None = Field(description="Rows known to be missing for good; null: not known.")
    note: str


class Gaps(Part):
    counts: dict[str, int] = Field(description="State -> gaps in it; states without any are left out.")
    latest: list[Gap]


class CatchUp(Part):
    state: Literal["running", "waiting", "done"]
    problem: str | None
    rows: Count | None = Field(None, description="Rows to look at, while it runs.")
    done: Count | None = Field(None, description="Rows looked at.")
    recovered: Count | None = Field(None, description="Rows that were missing, and are fetched.")


class SourceAccount(Part):
    """baseline + inserted - deleted = expected."""

    baseline: int | None = Field(description="Rows when it was first followed; null: not counted yet.")
    inserted: Count
    updated: Count
    deleted: int
    deletes_known: bool
    size: int | None = Field(description="Rows that the table had at the last audit.")
    shortfall: int | None = Field(description="Rows that it had and we did not.")
    audited: Time | None = Field(description="When that was.")
    expected: int | None


class Standby(Part):
    state: str = Field(
        description="`ready` to take over at once, `copying`, `waiting`, or why it does not run."
    )
    pid: int | None
    host: str | None
    problem: str | None
    aligned: bool
    lacked: Count = Field(description="Records that only the monitor received.")
    healed: Count = Field(description="Records that only the standby received.")
    restarts: Count


class Actor(Part):
    name: str = Field(description="The table, number of the decoder, or sink.")
    state: str = Field(
        description="`up`, or of a table `receiving`, `done`, `paused`, `frozen`, `dropped`, `aborted`, …; else "
        "`starting`, `waiting` (for resources or its host), `silent`, `down` or `parked`."
    )
    pid: int | None
    problem: str | None = Field(description="What a person should know, in one line.")
    restarts: Count
    recovery_seconds: list[float] = Field(description="How long each of the last 20 restarts took.")
    records_per_second: Number


class Progress(Part):
    """How far a table is read that is read; null where that is not known."""

    loaded: float | None
    total: float | None
    msg: str


class Table(Actor):
    actor: str = Field(description="Ray's name of the actor; several small tables may have one in common.")
    host: str | None
    paused: bool = Field(False, description="Whether a person has paused its delivery.")
    standby: Standby | None
    aborted: Aborted | None
    epoch: int | None = Field(description="When the subscription opened, in milliseconds since 1970.")
    received: Count = Field(description="Records since the monitor started.")
    last_received: Time | None
    progress: Progress | None = Field(None, description="What a data source or a stream tells of it.")
    reconnects: Count
    pending: Count = Field(description="Records that the sink that is furthest behind does not have.")
    lag_seconds: Number = Field(description="Age of the oldest record that some sink does not have; 0: none.")
    spool_bytes: Count
    dead_letters: Count
    resident_bytes: Count | None = Field(description="Memory of the monitor's process.")
    source: SourceAccount | None
    lost: Count = Field(description="Rows that the source had at the last audit and we did not.")
    accounts: list[Account]
    gaps: Gaps
    catch_up: CatchUp | None
    lanes: list[Lane]


class Spool(Part):
    """A spool that no monitor has, and that is not empty."""

    table: str
    host: str
    state: Literal["held", "draining"]
    records: Count
    dead_letters: Count
    problem: str | None


class Decoder(Actor):
    host: str | None
    blocks: Count
    records: Count
    bytes: Count = Field(description="Payload decoded, as received.")
    rejects: Count = Field(description="Records that did not decode.")
    filtered: Count
    busy_seconds: Number = Field(description="Time spent decoding.")


class Step(Part):
    """A change of the pool's size."""

    time: Time
    from_: Count = Field(alias="from")
    to: Count
    by: str = Field(description="`load`, `person` or `file`.")
    reason: str


class Decoders(Part):
    wanted: Count
    running: Count
    min: Count
    max: Count
    mode: Literal["automatic", "manual", "fixed"] = Field(
        description="By load, held by a person, or fixed by the file."
    )
    busy: Number | None = Field(
        description="Mean part of the time that the decoders work, 0 to 1; null: not known yet."
    )
    backlog_bytes: Count = Field(description="Payload that waits for sinks that take something.")
    backlog_seconds: Number = Field(description="How long the pool needs for it.")
    lag_seconds: Number | None = Field(description="Age of the oldest record of it.")
    bytes_per_second: Number = Field(description="What the pool decodes.")
    verdict: str = Field(description="Why the pool is as large as it is.")
    steps: list[Step] = Field(description="The last changes of its size, the newest last.")
    members: list[Decoder]


class Sink(Actor):
    kind: str
    paused: bool = Field(False, description="Whether a person has paused its delivery.")
    records: Count = Field(description="Records made durable since the writer started.")
    requests: Count
    retries: Count
    refused: Count = Field(description="Records that the sink refused for good.")
    waiting: Count = Field(description="Blocks that wait in the writer.")
    buffered_bytes: Count
    callers: Count = Field(description="Writers of events of their own.")
    in_flight: Count = Field(description="Requests under way.")
    circuit: str | None = Field(description="`closed`, `open` (the sink is not tried) or `half-open`.")
    concurrency: int | None = Field(
        description="Most requests under way at once, as it was found to be best."
    )
    problem_since: Time | None
    last_error: str | None
    last_error_at: Time | None


class Web(Part):
    url: str | None = Field(description="The page; null when it is turned off or cannot be served.")
    problem: str | None


class PipelineStatus(Part):
    """What `tablecast status NAME --json` prints and `/status` answers."""

    pipeline: str
    state: Literal["running", "draining", "stopping", "stopped"]
    time: Time
    supervisor_pid: int
    supervisor_since: Time
    restarts: Count = Field(description="Failures of all actors since the pipeline's start.")
    adopted: Count = Field(description="Actors that the supervisor found running when it was restarted.")
    alerts: list[str]
    web: Web
    hosts: list[Host]
    tables: list[Table]
    spools: list[Spool]
    decoders: Decoders
    sinks: list[Sink]


def schema() -> dict[str, Any]:
    """The published JSON schema (draft 2020-12): of one status."""
    made = PipelineStatus.model_json_schema()
    _open(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _open(part: Any) -> None:
    """Allow keys that are not described."""
    if isinstance(part, dict):
        if part.get("additionalProperties") is False:
            del part["additionalProperties"]
        for each in part.values():
            _open(each)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
