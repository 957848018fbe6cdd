"""The official client alters a table while rows flow: no row arrives under a wrong name, none is lost or doubled."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gpudb
import pytest

from cluster import control
from cluster.config import PipelineConfig
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: Rows per insert and seconds between inserts: several thousand rows per second, so that every alteration falls
#: among rows under way.
ROWS = 50
INTERVAL = 0.01


@pytest.fixture
def quiet() -> Iterator[None]:
    """The official client logs every call."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Altered:
    """A table that a thread keeps inserting into, each row with every string column saying its own name."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.db = gpudb.GPUdb(host=url)
        self.inserted: dict[int, dict[str, Any]] = {}
        self._columns = ["a", "b"]
        columns = [["id", "long", "primary_key"], ["a", "string", "nullable"], ["b", "string", "nullable"]]
        gpudb.GPUdbTable(columns, name, db=self.db)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._client = KineticaClient(url)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            with self._lock:
                rows = []
                for _ in range(ROWS):
                    number = next(self._numbers)
                    row = {"id": number, **{column: f"{column} {number}" for column in self._columns}}
                    rows.append(gpudb.GPUdbRecord(self._type, [row[name] for name in self._type_names]))
                    self.inserted[number] = row
                self._client.insert_records(self.name, [record.binary_data for record in rows])

    @property
    def _type(self) -> Any:
        if not hasattr(self, "_cached"):
            fields = [["id", "long"]] + [[column, "string", "nullable"] for column in self._columns]
            self._cached = gpudb.GPUdbRecordType(fields)
        return self._cached

    @property
    def _type_names(self) -> list[str]:
        return ["id", *self._columns]

    def alter(self, action: str, value: str, columns: list[str], **options: str) -> None:
        """Alter the table between two inserts; afterwards rows have `columns`, besides the id."""
        with self._lock:
            reply = self.db.alter_table(self.name, action, value, options)
            assert reply["status_info"]["status"] == "OK", reply
            self._columns = columns
            del self._cached

    def more_rows(self) -> None:
        """Wait for some hundred more."""
        goal = len(self.inserted) + 10 * ROWS
        wait_until(lambda: len(self.inserted) >= goal, "rows inserted")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def _alter_in_every_way(table: Altered, changes: Callable[[], list[dict[str, Any]]]) -> None:
    nullable = {"column_type": "string", "column_properties": "nullable"}
    steps: list[tuple[str, str, list[str], dict[str, str]]] = [
        ("add_column", "c", ["a", "b", "c"], nullable),
        ("delete_column", "b", ["a", "c"], {}),
        ("change_column", "c", ["a", "d"], {**nullable, "rename_column": "d"}),  # bytes do not show it
        ("delete_column", "a", ["d"], {}),
        ("add_column", "e", ["d", "e"], nullable),
    ]
    for done, (action, value, columns, options) in enumerate(steps, 1):
        table.alter(action, value, columns, **options)
        # Rows of each type: two alterations between two questions for it would leave nobody knowing the first.
        wait_until(lambda done=done: len(changes()) >= done, f"alteration {done} noticed")
        table.more_rows()
    # Dropped and another of the same wire type added at once, between two rows: nothing but the names differs.
    with table._lock:
        assert table.db.alter_table(table.name, "delete_column", "e", {})["status_info"]["status"] == "OK"
        assert table.db.alter_table(table.name, "add_column", "f", nullable)["status_info"]["status"] == "OK"
        table._columns = ["d", "f"]
        del table._cached
    table.more_rows()


@pytest.mark.parametrize("increasing", [True, False])
def test_rows_keep_their_names_through_every_alteration(
    quiet: None,
    increasing: bool,
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica_url: str,
    kronos: KronosClient,
) -> None:
    table = Altered(kinetica_url, unique)
    try:
        entry = {"name": unique} | ({"increasing_column": "id"} if increasing else {})
        supervisor = start(make_config(unique, [entry]))
        wait_until(lambda: control.ask(supervisor, "status")["tables"][0]["received"] > 0, "rows received")
        _alter_in_every_way(table, lambda: _altered(kronos, unique))
    finally:
        table.stop()
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    stored = traffic.events(kronos, unique)
    changes = _altered(kronos, unique)
    rejected = sum(event["ambiguous_rejected"] for event in changes)
    for event in stored:
        for column in set(event) - {"id"} - {name for name in event if name.startswith("@")}:
            # A row that was read again has what the rename moved: the value of c under the name d.
            names = {column, "c"} if column == "d" and increasing else {column}
            assert event[column] in {None, *(f"{name} {event['id']}" for name in names)}, event
    received = [number for number in table.inserted if number >= min(event["id"] for event in stored)]
    assert traffic.doubles(stored) == {}
    print(
        f"\nincreasing column {increasing}: {len(received)} rows, {len(stored)} stored, {rejected} rejected,"
        f" {sum(event['ambiguous'] for event in changes)} ambiguous,"
        f" {sum(event['reread'] for event in changes)} read again, in {len(changes)} changes"
    )
    assert len(stored) + rejected == len(received)
    assert changes[0]["added"] == ["c string(nullable)"]
    if increasing:
        assert rejected == 0
        for event in stored:  # every column that the row was inserted with, unless it has been dropped since
            for column, value in table.inserted[event["id"]].items():
                assert event.get(column, value) == value
            assert len(set(event) - {"id"}) >= 3


def _altered(kronos: KronosClient, table: str) -> list[dict[str, Any]]:
    return [
        event for event in traffic.events(kronos, f"{table}.changes") if event["event"] == "table_altered"
    ]


def _table(supervisor: Any) -> dict[str, Any]:
    (table,) = control.ask(supervisor, "status")["tables"]
    return dict(table)


def _receiving_again(supervisor: Any, reconnects: int) -> bool:
    table = _table(supervisor)
    return bool(table["state"] == "receiving" and table["reconnects"] >= reconnects)


def test_a_dropped_table_is_an_event_and_is_followed_again_when_it_is_back(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    supervisor = start(make_config(unique, [unique]))
    wait_until(lambda: _table(supervisor)["state"] == "receiving", "receiving")
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(10)])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 10, "the rows before stored")
    kinetica.clear_table(unique)
    wait_until(lambda: _table(supervisor)["state"] == "dropped", "state dropped", timeout=15)
    assert unique in _table(supervisor)["problem"]
    (event,) = wait_until(lambda: _dropped(kronos, unique), "an event stored")
    assert (event["event"], event["table"]) == ("table_dropped", unique)
    traffic.create(kinetica, unique)
    wait_until(lambda: _receiving_again(supervisor, 1), "receiving again")
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(10, 20)])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 20, "the rows of the new table stored")
    # Dropped and created again at once: neither its name nor its type tells.
    kinetica.clear_table(unique)
    traffic.create(kinetica, unique)
    wait_until(lambda: len(_dropped(kronos, unique)) == 2, "a second event", timeout=15)
    wait_until(lambda: _receiving_again(supervisor, 2), "receiving once more")
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(20, 30)])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 30, "the rows of the third table stored")
    assert traffic.doubles(traffic.events(kronos, unique)) == {}


def _dropped(kronos: KronosClient, table: str) -> list[dict[str, Any]]:
    return [
        event for event in traffic.events(kronos, f"{table}.changes") if event["event"] == "table_dropped"
    ]


def test_a_frozen_table_shows_it_and_delivers_nothing_more(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    supervisor = start(make_config(unique, [{"name": unique, "contract": "freeze"}]))
    wait_until(lambda: _table(supervisor)["state"] == "receiving", "receiving")
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(10)])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 10, "the rows before stored")
    kinetica.alter_table(unique, "change_column", "name", options={"rename_column": "title"})
    wait_until(lambda: _table(supervisor)["state"] == "frozen", "state frozen")
    assert "`tablecast resume` goes on with the new columns" in _table(supervisor)["problem"]
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(10, 20)])
    wait_until(lambda: _table(supervisor)["received"] == 20, "the rows after received")
    (event,) = wait_until(lambda: traffic.events(kronos, f"{unique}.changes"), "an event stored")
    assert event["removed"] == ["name string(nullable)"]
    table = wait_until(lambda: (s := _table(supervisor))["pending"] == 10 and s, "ten rows waiting")
    assert table["state"] == "frozen"
    assert len(traffic.events(kronos, unique)) == 10
