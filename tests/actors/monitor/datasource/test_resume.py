"""Data sources that die anywhere: with a state, each row is in the spool once, in order."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.backoff import Backoff
from actors.errors import SpoolFull
from actors.monitor import reader as reader_module
from actors.monitor.datasource import table as table_module
from actors.monitor.datasource.table import DataSourceTable
from actors.monitor.gaplog import GapLog
from actors.monitor.grouping import BlockBuilder, BlockLimits
from actors.monitor.pull import Pulled
from actors.monitor.reader import Reader
from actors.monitor.settings import MonitorSettings
from actors.monitor.spool import Spool
from protocols.panoply.datasource import DataSource
from protocols.panoply.source_errors import PanoplyException
from tests.actors.monitor.fakes import DEADLINE, monitor_settings, wait_for

SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds where there are seconds."""
    monkeypatch.setattr(reader_module, "Backoff", lambda initial, cap: Backoff(0.001, 0.004))
    monkeypatch.setattr(table_module, "Backoff", lambda initial, cap: Backoff(0.001, 0.004))
    monkeypatch.setattr(reader_module, "SLICE", 0.01)
    monkeypatch.setattr(reader_module, "CLOSE_TIMEOUT", 0.2)


def module_of(stream: type[DataSource], name: str = "a_users_source", **more: Any) -> str:
    """Make a module of it that can be imported."""
    module = types.ModuleType(name)
    vars(module).update({"Stream": stream, **more})
    sys.modules[name] = module
    return name


def source_settings(spool: Path, stream: type[DataSource], **changes: Any) -> MonitorSettings:
    source = {"module": module_of(stream), "params": {"token": SECRET}, "options": {}, "batch": 3}
    limits = BlockLimits(records=4, bytes=1 << 20, linger=0.0)
    return monitor_settings(spool, **{"kind": "datasource", "source": source, "limits": limits, **changes})


class Life:
    """One life of a table's reader, on a thread."""

    def __init__(self, settings: MonitorSettings, crash: tuple[int, bool] | None = None) -> None:
        self.spool = Spool(settings.spool, settings.table)
        self.gaps = GapLog(self.spool.transaction, settings.table)
        self.source = DataSourceTable(settings)
        self._crash = crash
        self._appends = 0
        self._append = self.spool.append
        self.spool.append = self._counted  # type: ignore[method-assign]
        self.reader = Reader(settings, self.source, self.spool, lambda feeds: None, lambda size: 0, self.gaps)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _counted(self, *arguments: Any) -> None:
        """Crash at an append, before or after it: from then on nothing is stored any more."""
        number, self._appends = self._appends, self._appends + 1
        at, after = self._crash or (1 << 30, False)
        if number < at or (number == at and after):
            self._append(*arguments)
        if number >= at:
            raise _Crash

    def _run(self) -> None:
        with contextlib.suppress(_Crash):
            self.reader.run()

    def stop(self, ending: bool = False) -> None:
        self.reader.stop(ending)
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()
        self.spool.close()

    @property
    def rows(self) -> list[dict[str, Any]]:
        frames = [frame for block in self.spool.blocks("t") for frame in msgpack.unpackb(block.payload)]
        return [orjson.loads(frame) for frame in frames]


class _Crash(BaseException):
    pass


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Begins lives of a data source, and ends the last."""
    lives: list[Life] = []

    def begin(stream: type[DataSource], **changes: Any) -> Life:
        lives.append(Life(source_settings(tmp_path / "spool", stream, **changes)))
        return lives[-1]

    yield begin
    if lives and lives[-1].thread.is_alive():
        lives[-1].stop()


def counting(total: int, step: int, named: bool, fails: frozenset[int] = frozenset()) -> type[DataSource]:
    """Numbers from 0 on, from where the state says; reads whose first number is in `fails` fail once."""
    left = set(fails)

    class Numbers(DataSource):
        def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
            super().__init__(source, options)
            self.next = source.get("state", {}).get("next", 0)

        def read(self, batch_size: int | None = None) -> Any:
            if self.next in left:
                left.remove(self.next)
                raise ConnectionError("not now")
            if self.next >= total:
                return None
            numbers = range(self.next, min(self.next + step, total))
            self.next = numbers.stop
            self.state(f"at {self.next}", {"next": self.next})
            rows: list[dict[str, Any]] = [{"n": n} for n in numbers]
            if named:
                for row in rows:
                    row["__state"] = f"at {self.next}"
            return rows

    return Numbers


@settings(max_examples=30, deadline=None)
@given(
    total=st.integers(0, 30),
    step=st.integers(1, 9),
    named=st.booleans(),
    fails=st.frozensets(st.integers(0, 30), max_size=4),
    crashes=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=4),
)
def test_each_row_is_stored_once_whenever_it_dies(
    total: int, step: int, named: bool, fails: frozenset[int], crashes: list[tuple[int, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = source_settings(Path(folder) / "spool", counting(total, step, named, fails))
        for crash in crashes:
            life = Life(made, crash)
            wait_for(lambda: not life.thread.is_alive() or life.reader.state == "done")  # noqa: B023
            life.stop()
        life = Life(made)
        wait_for(lambda: life.reader.state == "done", "read to the end")
        rows = life.rows
        life.stop()
    assert [row["n"] for row in rows] == list(range(total))


def test_a_done_table_stays_done_until_the_pipeline_ends(live: Callable[..., Life]) -> None:
    stream = counting(5, 2, True)
    life = live(stream)
    wait_for(lambda: life.reader.state == "done")
    life.stop()
    life = live(stream)
    wait_for(lambda: life.reader.state == "done")
    assert life.reader.received == 0
    life.stop(ending=True)
    life = live(counting(8, 2, True))  # three more since
    wait_for(lambda: life.reader.received == 3 and life.reader.state == "done")
    assert [row["n"] for row in life.rows] == list(range(8))


def test_read_is_tried_again_three_times_and_then_the_source_is_made_anew(live: Callable[..., Life]) -> None:
    calls: list[int] = []

    class Failing(DataSource):
        def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
            super().__init__(source, options)
            calls.append(0)

        def read(self, batch_size: int | None = None) -> Any:
            calls[-1] += 1
            if len(calls) < 3:
                raise ConnectionError(f"no way with {self.source['token']}")
            return None

    life = live(Failing)
    wait_for(lambda: life.reader.state == "done")
    assert calls == [4, 4, 1]
    assert life.reader.reconnects == 2


def test_what_is_not_to_be_tried_again_waits_for_a_person(
    live: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    mended = threading.Event()
    calls: list[int | None] = []

    class Refused(DataSource):
        def read(self, batch_size: int | None = None) -> Any:
            calls.append(batch_size)
            if not mended.is_set():
                raise PanoplyException(f"{self.source['token']} has expired", retryable=False)
            return None

    caplog.set_level(logging.INFO)
    life = live(Refused)
    wait_for(lambda: life.reader.state == "parked")
    assert life.reader.problem == (
        "read failed: PanoplyException: *** has expired; mend that and `tablecast resume`"
    )
    assert calls == [3]
    mended.set()
    assert life.reader.resume()
    wait_for(lambda: life.reader.state == "done")
    assert not life.reader.resume()
    assert SECRET not in caplog.text
    assert SECRET not in repr(vars(life.reader)["_settings"])


def test_events_are_kept_shown_and_masked(
    live: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    sources: list[dict[str, Any]] = []
    go = threading.Event()

    class Talking(DataSource):
        def read(self, batch_size: int | None = None) -> Any:
            sources.append(dict(self.source))
            self.log("token", self.source["token"])
            self.progress(3, 10, f"with {self.source['token']}")
            self.fire("source-change", {"token": "a-new-token", "extra": 1})
            go.wait(DEADLINE)
            return None

    caplog.set_level(logging.INFO)
    life = live(Talking)
    wait_for(lambda: life.source.progress)
    assert life.source.progress == {"loaded": 3, "total": 10, "msg": "with ***"}
    wait_for(lambda: life.gaps.kept("changes"))
    assert life.spool.directory.stat().st_mode & 0o077 == 0
    go.set()
    wait_for(lambda: life.reader.state == "done")
    life.stop(ending=True)
    life = live(Talking)
    wait_for(lambda: life.reader.state == "done")
    assert [source["token"] for source in sources] == [SECRET, "a-new-token"]
    assert sources[1] == {
        **{"type": "a_users_source", "id": "p/t", "database": "p", "destination": "t"},
        **{"token": "a-new-token", "extra": 1},
    }
    assert SECRET not in caplog.text
    assert "a-new-token" not in caplog.text
    life.stop(ending=True)
    # Changed in the file: that is newer.
    source = {"module": "a_users_source", "params": {"token": "from-the-file"}, "options": {}, "batch": 3}
    life = live(Talking, source=source)
    wait_for(lambda: life.reader.state == "done")
    assert (sources[2]["token"], sources[2]["extra"]) == ("from-the-file", 1)


def test_events_of_the_constructor_are_heard(live: Callable[..., Life]) -> None:
    class Early(DataSource):
        def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
            super().__init__(source, options)
            self.rows = iter([[{"n": 1, "__state": "begun"}]])
            self.state("begun", {"n": 1})
            self.progress(1, 2, "begun")
            self.fire("source-change", {"extra": 1})

        def read(self, batch_size: int | None = None) -> Any:
            return next(self.rows, None)

    life = live(Early)
    wait_for(lambda: life.reader.state == "done")
    assert life.source.progress == {"loaded": 1, "total": 2, "msg": "begun"}
    assert list(life.gaps.kept("changes")) == ["extra"]
    assert orjson.loads(life.gaps.kept("state")) == {"n": 1}


@pytest.mark.parametrize("place", ["__init__", "read"])
def test_an_exit_is_masked_as_any_error(
    live: Callable[..., Life], caplog: pytest.LogCaptureFixture, place: str
) -> None:
    class Exiting(DataSource):
        def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
            super().__init__(source, options)
            if place == "__init__":
                sys.exit(f"no way with {self.source['token']}")

        def read(self, batch_size: int | None = None) -> Any:
            sys.exit(f"no way with {self.source['token']}")

    caplog.set_level(logging.INFO)
    life = live(Exiting)
    wait_for(lambda: life.reader.problem)
    assert "SystemExit: no way with ***" in str(life.reader.problem)
    life.stop()
    assert SECRET not in caplog.text


def test_a_gap_is_stored_with_the_rows_behind_it(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise SpoolFull("no room for more than rows")

    monkeypatch.setattr(GapLog, "open", full)
    take = Reader._take

    def torn(self: Reader, builder: BlockBuilder, read: Pulled) -> None:
        take(self, builder, read._replace(gap="records expired"))

    monkeypatch.setattr(Reader, "_take", torn)
    life = live(counting(2, 2, False))
    wait_for(lambda: life.reader.state == "done")
    assert [row["n"] for row in life.rows] == [0, 1]
    (gap,) = life.gaps.latest(9)
    assert (gap.cause, gap.state, gap.missing) == ("records expired", "unhealed", None)


def test_groups_raw_rows_and_what_is_no_row(live: Callable[..., Life]) -> None:
    from protocols.panoply.records import to_record

    class Various(DataSource):
        given: Any = iter(())

        def read(self, batch_size: int | None = None) -> Any:
            return next(type(self).given)

    group = to_record("r", [{"a": 1}, {"a": 2, "__state": "s"}])
    raw = Various({}).raw("tag", b"\x00\xffabc", {"__state": "s", "file": "f"})
    named = {**to_record("r", [{"a": 3}]), "__state": "s"}
    Various.given = iter([group, [group, raw, named, {"a": {1}}, 5], [], None])
    life = live(Various)
    wait_for(lambda: life.reader.state == "done")
    frames = [frame for block in life.spool.blocks("t") for frame in msgpack.unpackb(block.payload)]
    rows = [orjson.loads(frame) for frame in frames[:6]]
    assert [row.get("a") for row in rows] == [1, 2, 1, 2, None, 3]
    assert "__state" not in rows[5]
    assert rows[0]["__resource_id"] == "r"
    assert rows[0]["__timestamp"].endswith("Z")
    assert rows[4] == {"type": "raw", "tag": "tag", "raw": "AP9hYmM=", "metadata": {"file": "f"}}
    assert [frame.split(b"\n")[0] for frame in frames[6:]] == [
        b"!no JSON: Type is not JSON serializable: set",
        b"!a row is a dict, not a int",
    ]


@pytest.mark.parametrize("given", ["text", {"a": 1}, 5])
def test_what_is_no_list_is_told(live: Callable[..., Life], given: object) -> None:
    class Wrong(DataSource):
        def read(self, batch_size: int | None = None) -> Any:
            return given

    life = live(Wrong)
    wait_for(lambda: life.reader.state == "parked")
    assert "it must return a list of dicts, or None" in str(life.reader.problem)


def test_a_read_that_hangs_does_not_hold_up_a_stop(live: Callable[..., Life]) -> None:
    hangs, go = threading.Event(), threading.Event()

    class Hanging(DataSource):
        def read(self, batch_size: int | None = None) -> Any:
            if not hangs.is_set():
                hangs.set()
                return [{"n": 1}]
            go.wait(DEADLINE)
            return [{"n": 2}]

    life = live(Hanging)
    wait_for(lambda: life.reader.received == 1)
    began = time.monotonic()
    life.stop()
    assert time.monotonic() < began + 5
    go.set()


def test_a_full_spool_stops_the_reading_and_loses_nothing(live: Callable[..., Life], tmp_path: Path) -> None:
    reads: list[int] = []

    class Endless(DataSource):
        def read(self, batch_size: int | None = None) -> Any:
            reads.append(len(reads))
            return [{"n": reads[-1], "text": "x" * 1000}] if len(reads) <= 60 else None

    life = live(Endless, max_bytes=20_000)
    wait_for(lambda: life.reader.state == "paused")
    seen = len(reads)
    assert seen < 40
    assert "its bound is 20,000" in str(life.reader.problem)
    assert life.spool.bytes < 40_000
    threading.Event().wait(0.1)
    assert len(reads) <= seen + 2  # one in hand, one on the way


def test_a_full_disk_keeps_what_was_read_until_there_is_room(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    append = Spool.append

    def maybe(self: Spool, *arguments: Any) -> None:
        if full.is_set():
            raise SpoolFull("no room")
        append(self, *arguments)

    full.set()
    monkeypatch.setattr(Spool, "append", maybe)
    life = live(counting(7, 2, False))
    wait_for(lambda: life.reader.problem == "no room")
    full.clear()
    wait_for(lambda: life.reader.state == "done")
    assert [row["n"] for row in life.rows] == list(range(7))
