"""A whole table in one process without Ray: the real monitor, decoder, writer and Kronos sink, chained by threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actors.block import BlockId
from actors.codec.decoder import Decoder, all_or_nothing
from actors.errors import DecodeFailed
from actors.monitor.grouping import BlockLimits
from actors.monitor.monitor import Monitor
from actors.monitor.settings import MonitorSettings
from actors.monitor.transport import DecoderFailed, Task
from actors.writer.sinks import make_sink
from actors.writer.writer import Writer

Done = Callable[[Any], None]


class InProcessTransport:
    """Decodes on a thread, writes on another's event loop; `sinks` are as in the pipeline file."""

    def __init__(self, pipeline: str, sinks: dict[str, dict[str, Any]]) -> None:
        self._decoder = Decoder()
        self._decoding = ThreadPoolExecutor(2)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.writers = {name: self._wait(_make(pipeline, settings)) for name, settings in sinks.items()}

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def tidy(self) -> None: ...

    def attach(self, sink: str, order: str, session: int, done: Done) -> None:
        self._start(self.writers[sink].attach(order, (1, session)), done)

    def write(self, sink: str, task: Task, session: int, previous: BlockId | None, done: Done) -> None:
        async def write() -> Any:
            batch = await self._loop.run_in_executor(self._decoding, self._decode, task)
            return await self.writers[sink].write((1, session), task.id, previous, batch)

        self._start(write(), done)

    def _decode(self, task: Task) -> Any:
        try:
            batch = self._decoder.decode(task.block)
        except DecodeFailed as error:
            raise DecoderFailed(str(error), blame=True) from error
        return all_or_nothing(batch) if task.strict else batch

    def _start(self, work: Coroutine[Any, Any, Any], done: Done) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda future: done(future.exception() or future.result()))

    def close(self) -> None:
        for writer in self.writers.values():
            self._wait(writer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._decoding.shutdown()


async def _make(pipeline: str, settings: dict[str, Any]) -> Writer:
    return Writer(make_sink(pipeline, settings))


def make_monitor(
    table: str, kinetica: str, kronos: str, spool: Path, sink: dict[str, Any] | None = None, **changes: Any
) -> tuple[Monitor, InProcessTransport]:
    """The monitor of `table` with one sink, by default that of Kronos, small blocks and short waits."""
    transport = InProcessTransport("p", {"events": sink or {"kronos": {"url": kronos}}})
    values: dict[str, Any] = {
        "pipeline": "p",
        "table": table,
        "events": ("insert",),
        "sinks": ("events",),
        "source": {"urls": [kinetica]},
        "monitor_port": None,
        "spool": str(spool),
        "max_bytes": 1 << 30,
        "min_free": 0,
        "limits": BlockLimits(records=40, bytes=1 << 20, linger=0.005),
        "window_bytes": 1 << 20,
    }
    return Monitor(MonitorSettings(**{**values, **changes}), transport), transport


def run_monitor(*arguments: Any) -> None:
    """Run it until the process is killed; to be started in a process of its own."""
    monitor, _ = make_monitor(*arguments)
    monitor.start()
    threading.Event().wait()
