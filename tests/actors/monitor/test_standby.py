"""A monitor and its standby over a real table server and real spools: whatever becomes of either, no row is lost."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import msgpack
import pytest

from actors.batch import Rejected
from actors.block import BlockId
from actors.errors import NotAttached, StaleOwner
from actors.monitor.gaplog import GapLog
from actors.monitor.kinetica import KineticaTable, schema_type
from actors.monitor.monitor import Monitor
from actors.monitor.replicator import Parcel, PartnerLost, SharedTable
from actors.monitor.source import Following, Received
from actors.monitor.spool import Spool
from actors.monitor.standby import Standby
from actors.monitor.standing import Standing
from actors.monitor.transport import Task
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.server import TableServer
from protocols.kinetica.types import Column, TableType
from tests.actors.monitor.fakes import DEADLINE, FakeTransport, monitor_settings, wait_for

TYPE = TableType((Column("id", "int", properties=("primary_key",)), Column("name", "string")))
SCHEMA = fastavro.parse_schema(TYPE.avro)


def frame(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, {"id": number, "name": "x"})
    return out.getvalue()


def number(row: bytes) -> int:
    values: Any = fastavro.schemaless_reader(io.BytesIO(row), SCHEMA, None)
    return int(values["id"])


class Owner:
    """How one incarnation of a monitor reaches the writers, until it is cut off."""

    def __init__(self, writers: FakeTransport, incarnation: int) -> None:
        self.cut = False
        self._writers = writers
        self._incarnation = incarnation

    def tidy(self) -> None: ...

    def attach(self, sink: str, order: str, session: int, done: Callable[[Any], None]) -> None:
        self._call(lambda: self._writers._attach(sink, order, session, self._live(done)), done)

    def write(
        self, sink: str, task: Task, session: int, previous: BlockId | None, done: Callable[[Any], None]
    ) -> None:
        self._call(lambda: self._writers._write(sink, task, session, previous, self._live(done)), done)

    def _live(self, done: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda result: None if self.cut else done(result)

    def _call(self, call: Callable[[], None], done: Callable[[Any], None]) -> None:
        def act() -> None:
            if self.cut:
                return
            self._writers.owner = self._incarnation
            try:
                call()
            except StaleOwner as error:
                done(error)

        self._writers._put(act)


class Direct:
    """A monitor's way to the standby beside it, until it is cut off."""

    def __init__(self, source: SharedTable) -> None:
        self.source = source
        self.standby: Standby | None = None
        self.cut = False
        self.killed = 0
        self.dead = False
        self.parcels: list[Parcel] = []

    def begin(self, term: int, following: Following) -> None:
        self._reachable.begin(term, following)

    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        self.parcels.append(parcel)
        try:
            return self._reachable.replicate(term, parcel)
        except NotAttached as error:
            raise PartnerLost(str(error)) from error

    def kill(self) -> None:
        self.killed += 1

    def replaced(self) -> bool:
        return self.dead

    @property
    def _reachable(self) -> Standby:
        if self.cut or self.standby is None:
            raise PartnerLost("not there")
        return self.standby


class House:
    """A table, two places for its monitor, and one sink."""

    def __init__(self, server: TableServer, folder: Path, **changes: object) -> None:
        self.writers = FakeTransport()
        values = {"source": {"urls": [server.url], "timeout": 5.0}, **changes}
        self.settings = [monitor_settings(folder / name, **values) for name in ("a", "b")]
        self.monitors: list[Monitor] = []
        self.standbys: list[Standby] = []
        self.links: list[Direct] = []
        self.owners: list[Owner] = []
        self.terms = 0

    def stand_by(self, place: int) -> Standby:
        """The standby at a place; the monitor there, if any, must be dead."""
        settings = self.settings[place]
        standby = Standby(settings, KineticaTable(settings))
        self.standbys.append(standby)
        if self.links:
            self.links[-1].standby = standby
        return standby

    def lead(self, standby: Standby) -> Monitor:
        """Let it take over."""
        self.terms += 1
        place = [each.spool for each in self.settings].index(standby._settings.spool)
        source = standby.take_over(self.terms)
        self.owners.append(Owner(self.writers, self.terms))
        self.links.append(Direct(source))
        monitor = Monitor(self.settings[place], self.owners[-1])
        monitor.pair(source, self.links[-1], self.terms)
        monitor.start()
        self.monitors.append(monitor)
        wait_for(lambda: monitor.status()["state"] == "receiving", f"it receives: {monitor.status()}")
        return monitor

    def kill(self) -> None:
        """The monitor reaches nobody any more."""
        self.owners[-1].cut = self.links[-1].cut = self.links[-1].dead = True

    @property
    def stream(self) -> Any:
        """The open stream of the newest monitor."""
        return self.links[-1].source.stream

    def pair(self) -> Standby:
        """A monitor at the first place, and a standby at the second that is ready and aligned."""
        self.lead(self.stand_by(0))
        standby = self.stand_by(1)
        wait_for(lambda: ready(standby), "the standby is ready")
        return standby

    def rows(self) -> list[bytes]:
        """Every row as a sink that knows doubles by their origin holds them, in order."""
        rows: dict[tuple[int, int], bytes] = {}
        for block in self.writers.delivered.get(("a", "t"), []):
            for i, row in enumerate(msgpack.unpackb(block.payload)):
                assert rows.setdefault((block.epoch, block.offset + i), row) == row
        return [row for _, row in sorted(rows.items())]

    def numbers(self) -> list[int]:
        return [number(row) for row in self.rows()]

    def has_all(self, total: int) -> None:
        """Wait for `total` rows, each of them once and in order."""
        wait_for(lambda: len(self.rows()) >= total, f"{total} rows, of which {self.numbers()} are there")
        assert self.numbers() == list(range(total))

    def close(self) -> None:
        for standby in self.standbys:
            standby.close()
        for monitor in self.monitors:
            monitor.stop()
        self.writers.close()


def ready(standby: Standby) -> bool:
    status = standby.status()
    return bool(status["ready"] and status["aligned"])


def heard(standby: Standby) -> Following | None:
    return standby._ear._following if standby._ear is not None else None


@pytest.fixture
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0) as running:
        yield running


@pytest.fixture
def client(server: TableServer) -> Iterator[KineticaClient]:
    with KineticaClient(server.url) as client:
        client.create_table("t", client.create_type(TYPE))
        yield client


@pytest.fixture
def house(
    server: TableServer, client: KineticaClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    monkeypatch.setattr("actors.monitor.replicator.QUIET", 0.6)
    monkeypatch.setattr("actors.monitor.standby.QUIET", 0.6)
    monkeypatch.setattr("actors.monitor.receiver.LAST_ROWS", 0.0)
    house = House(server, tmp_path)
    yield house
    house.close()


class Traffic:
    """Rows that keep coming."""

    def __init__(self, client: KineticaClient, size: int = 5) -> None:
        self.count = 0
        self._client = client
        self._size = size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.003):
            self._client.insert_records("t", [frame(self.count + i) for i in range(self._size)])
            self.count += self._size

    def more(self, rows: int = 100) -> None:
        goal = self.count + rows
        wait_for(lambda: self.count >= goal, "rows are inserted")

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.count


def test_the_standby_goes_on_where_the_monitor_died(house: House, client: KineticaClient) -> None:
    """And the next one after it: rows come all the time, and there is no increasing column."""
    standby = house.pair()
    traffic = Traffic(client)
    for place in (0, 1, 0):
        traffic.more()
        house.kill()
        traffic.more(20)
        house.lead(standby)
        traffic.more()
        house.monitors[-2].stop()  # lets go of its spool, as dying does
        standby = house.stand_by(place)
        wait_for(partial(ready, standby), "the pair is formed again")
    total = traffic.stop()
    house.has_all(total)


def test_a_standby_that_comes_while_rows_do_copies_what_is_waiting(
    house: House, client: KineticaClient
) -> None:
    """The sink is away, so nothing of what was received can be forgotten."""
    house.writers.down["a"] = NotAttached("away")
    house.lead(house.stand_by(0))
    traffic = Traffic(client)
    traffic.more(300)
    standby = house.stand_by(1)
    wait_for(lambda: ready(standby), "the standby is ready")
    traffic.more()
    house.kill()
    traffic.more()
    house.lead(standby)
    del house.writers.down["a"]
    house.has_all(traffic.stop())


def test_no_row_is_delivered_before_the_standby_has_it(house: House, client: KineticaClient) -> None:
    """Else the standby could give its offset to another one."""
    standby = house.pair()
    link = house.links[-1]
    held = threading.Event()
    replicate = link.replicate

    def slow(term: int, parcel: Parcel) -> list[Received]:
        held.wait(DEADLINE)
        return replicate(term, parcel)

    link.replicate = slow  # type: ignore[method-assign]
    client.insert_records("t", [frame(0)])
    monitor = house.monitors[-1]
    wait_for(lambda: monitor.pending == 1, "the row is in the spool")
    time.sleep(0.3)  # for a delivery that must not come
    assert house.numbers() == []
    assert ready(standby)
    held.set()
    house.has_all(1)


def test_without_its_standby_a_monitor_goes_on_and_that_standby_never_takes_over(
    house: House, client: KineticaClient
) -> None:
    house.pair()
    link = house.links[-1]
    link.cut = True
    client.insert_records("t", [frame(0)])
    house.has_all(1)
    assert link.killed == 1


def test_a_monitor_that_was_only_stopped_does_nothing_any_more(house: House, client: KineticaClient) -> None:
    """It reaches everybody again when a newer one has taken over."""
    standby = house.pair()
    traffic = Traffic(client)
    traffic.more()
    old, owner, link = house.monitors[-1], house.owners[-1], house.links[-1]
    house.kill()
    house.lead(standby)
    traffic.more()
    owner.cut, link.cut = False, False
    wait_for(lambda: old.status()["state"] == "failed", "the old monitor knows")
    house.has_all(traffic.stop())


def test_a_row_that_the_monitor_was_not_sent_comes_from_the_standby(
    house: House, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = house.pair()
    stream = house.stream
    receive = stream.receive

    dropped: list[Any] = []

    def lossy(timeout: float) -> list[Any]:
        items: list[Any] = receive(timeout)
        if not dropped:
            dropped.extend(item for item in items if item.frames == [frame(3)])
            items = [item for item in items if item not in dropped]
        return items

    monkeypatch.setattr(stream, "receive", lossy)
    for n in range(30):
        client.insert_records("t", [frame(n)])
    wait_for(lambda: len(house.rows()) == 30, "the row is healed")
    assert sorted(house.numbers()) == list(range(30))
    assert house.monitors[-1].status()["standby"]["healed"] == 1
    (gap,) = GapLog(house.monitors[-1].spool.transaction, "t").latest(10)
    assert (gap.state, gap.recovered, gap.missing) == ("healed", 1, 0)
    assert ready(standby)


def test_a_row_that_the_standby_was_not_sent_costs_nothing(
    house: House, client: KineticaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = house.pair()
    assert standby._ear is not None
    stream: Any = standby._ear._stream
    receive = stream.receive
    monkeypatch.setattr(stream, "receive", lambda t: [i for i in receive(t) if i.frames != [frame(3)]])
    for n in range(30):
        client.insert_records("t", [frame(n)])
    wait_for(lambda: standby.status()["lacked"] == 1, "it is noted")
    house.kill()
    client.insert_records("t", [frame(30)])
    house.lead(standby)
    house.has_all(31)


def test_updates_that_look_all_alike_are_told_apart_by_their_number(
    house: House, client: KineticaClient
) -> None:
    house.settings = [replace(each, events=("insert", "update", "delete")) for each in house.settings]
    client.insert_records("t", [frame(n) for n in range(10)])
    standby = house.pair()
    for _ in range(20):
        client.update_records("t", ["id = 5"], [{"name": "y"}])
    house.kill()
    for _ in range(7):
        client.update_records("t", ["id = 5"], [{"name": "y"}])
    house.lead(standby)

    def updates() -> int:
        blocks = house.writers.in_order("a", "t.updates")
        return len({(b.epoch, b.offset + i) for b in blocks for i in range(b.count)})

    wait_for(lambda: updates() >= 27, "all updates")
    assert updates() == 27


def test_dead_letters_outlive_the_monitor(house: House, client: KineticaClient) -> None:
    standby = house.pair()

    def reject(sink: str, task: Task) -> None:
        house.writers.rejects[task.block.id] = (Rejected(task.block.offset, "no", b"x"),)

    house.writers.fault = reject
    client.insert_records("t", [frame(0)])
    wait_for(lambda: house.monitors[-1].status().get("dead_letters") == 1, "a dead letter")
    parcels = house.links[-1].parcels

    def copied() -> bool:
        changes = (change for parcel in parcels if not parcel.copying for change in parcel.changes)
        return any("INTO dead_letter" in sql for sql, _ in changes)

    wait_for(copied, "it is copied")
    house.kill()
    monitor = house.lead(standby)
    assert monitor.status()["dead_letters"] == 1


def test_an_altered_table_is_followed_by_both(house: House, client: KineticaClient) -> None:
    """Its bytes do not show the change, so the name of the column tells who knew of it."""
    standby = house.pair()
    before = house.stream.following
    client.insert_records("t", [frame(n) for n in range(10)])
    house.has_all(10)
    client.alter_table("t", "change_column", "name", options={"rename_column": "title"})
    wait_for(lambda: house.stream.following != before, "the new topic is followed")
    wait_for(lambda: heard(standby) == house.stream.following and ready(standby), "here too")
    client.insert_records("t", [frame(n) for n in range(10, 20)])
    house.has_all(20)
    house.kill()
    client.insert_records("t", [frame(n) for n in range(20, 30)])
    house.lead(standby)
    client.insert_records("t", [frame(n) for n in range(30, 40)])
    house.has_all(40)
    for block in house.writers.in_order("a", "t"):
        for row in msgpack.unpackb(block.payload):
            assert schema_type(block.schema).names[1] == ("name" if number(row) < 10 else "title")


def test_a_directory_tells_whose_it_is(house: House, tmp_path: Path) -> None:
    assert Standing.read(tmp_path / "none") == Standing(owner=False, term=0)
    Spool(tmp_path / "used").close()
    assert Standing.read(tmp_path / "used") == Standing(owner=True, term=0)
    house.pair()
    assert [Standing.read(Path(each.spool)) for each in house.settings] == [
        Standing(True, 1),
        Standing(False, 1),
    ]


def test_one_that_serves_a_newer_monitor_refuses_the_older(house: House) -> None:
    standby = house.pair()
    following = house.stream.following
    with pytest.raises(StaleOwner):
        standby.begin(0, following)
    with pytest.raises(StaleOwner):
        standby.replicate(0, Parcel())
    with pytest.raises(NotAttached):
        standby.replicate(2, Parcel())
    house.kill()
    house.lead(standby)
    with pytest.raises(StaleOwner):
        standby.replicate(1, Parcel())
