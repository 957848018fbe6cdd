"""Events of a running pipeline as they pass: the table's monitor shows the blocks that it sends; decoded here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from actors.block import TICKS_PER_SECOND, Block
from actors.codec.decoder import Decoder
from actors.errors import DecodeFailed
from actors.monitor.tap import Passed
from actors.writer.encode import encode_batch
from cluster import control
from cluster.errors import NoSuchPipeline
from cluster.supervisor.plan import decoder_specs

#: Seconds allowed to a monitor; who looks is told soon that it is away, and looks again.
_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event as the sinks get it: `line` is JSON with ``@origin`` and ``@time``.

    A record that does not decode has ``@rejected``, the reason, instead of columns.
    """

    line: str

    def text(self) -> str:
        """For people: when it was received, its origin, its columns."""
        values: dict[str, Any] = orjson.loads(self.line)
        origin, ticks = values.pop("@origin"), values.pop("@time")
        clock = time.strftime("%H:%M:%S", time.localtime(ticks / TICKS_PER_SECOND))
        clock += f".{ticks * 1000 // TICKS_PER_SECOND % 1000:03}"
        if reason := values.pop("@rejected", None):
            return f"{clock} {origin}  REJECTED {reason}"
        return f"{clock} {origin}  " + " ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return (
        str(value) if isinstance(value, str) and value and " " not in value else orjson.dumps(value).decode()
    )


@dataclass(frozen=True, slots=True)
class Glance:
    """Events in the order in which they were sent, and how many before them were missed."""

    events: list[Event]
    missed: int


class Tail:
    """Looks at `table` of the running pipeline `name`.

    Raises :class:`NoSuchPipeline`; :meth:`look` raises :class:`NotReady` while the monitor is away.
    """

    def __init__(self, name: str, table: str) -> None:
        config = control.running_config(name)
        if config is None:
            raise NoSuchPipeline(f"no pipeline named {name} is running")
        (spec,) = decoder_specs(config, 1)
        self._decoder = Decoder(spec.settings)
        self._name = name
        self._table = table
        self._seen: int | None = None

    def look(self) -> Glance:
        """What has passed since the last look; nothing at the first."""
        passed: Passed = control.ask_monitor(self._name, self._table, "tail", self._seen, timeout=_TIMEOUT)
        self._seen = passed.seen
        return Glance([event for block in passed.blocks for event in self._events(block)], passed.missed)

    def _events(self, block: Block) -> list[Event]:
        try:
            return events_of(self._name, block, self._decoder)
        except DecodeFailed as error:
            return [_rejected(f"{self._name}/{block.feed}/{block.epoch}/", block, block.offset, str(error))]


def events_of(pipeline: str, block: Block, decoder: Decoder) -> list[Event]:
    """The events of `block`, then its records that do not decode; those filtered are no events.

    Raises :class:`DecodeFailed` for a block that cannot be read at all.
    """
    prefix = f"{pipeline}/{block.feed}/{block.epoch}/"
    batch = decoder.decode(block)
    lines = encode_batch(pipeline, batch).lines(0, batch.rows.num_rows)
    events = [Event(line.decode()) for line in lines.splitlines()]
    return events + [_rejected(prefix, block, reject.offset, reject.reason) for reject in batch.rejects]


def _rejected(prefix: str, block: Block, offset: int, reason: str) -> Event:
    when = block.time + offset - block.offset
    line = orjson.dumps({"@time": when, "@origin": f"{prefix}{offset}", "@rejected": reason})
    return Event(line.decode())
