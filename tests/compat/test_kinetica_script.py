"""One script through the official monitor client and through ours: the same callbacks with the same values."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gpudb
import pytest

from protocols.kinetica.server import TableServer
from tablecast.compat import GPUdbTableMonitor

DEADLINE = 60.0
COLUMNS = [
    ["id", "int"],
    ["flag", "int", "boolean", "nullable"],
    ["at", "long", "timestamp"],
    ["x", "double", "nullable"],
    ["f", "float"],
    ["s", "string", "char16", "nullable"],
    ["day", "string", "date", "nullable"],
    ["price", "string", "decimal(10,3)", "nullable"],
    ["j", "string", "json", "nullable"],
    ["b", "bytes", "nullable"],
]
ROWS = [
    [1, 1, 1_700_000_000_123, 1.5, 0.1, "é☃", "2024-02-29", "1.500", '{"a": [1, null]}', b"\x00\xff"],
    [2, None, -1, None, 2.5, None, None, None, None, None],
    [3, 0, 0, float("inf"), -0.0, "", "1999-12-31", "-7.000", "[]", b""],
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0) as running:
        yield running


def construct(make: Callable[[], Any]) -> Any:
    """The official constructor hangs at random, for ever: each try gets two seconds."""
    made: list[Any] = []

    def run() -> None:
        with contextlib.suppress(gpudb.GPUdbException):
            made.append(make())

    for _ in range(40):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(2)
        if made:
            return made[0]
    pytest.fail("the monitor client could not be constructed in 40 tries")


def script(package: Any, db: gpudb.GPUdb, name: str, port: int, threads: int) -> dict[str, list[Any]]:
    """Follow a table through inserts, an update, a delete and its end; returns what each callback got.

    Each of a client's threads has handed out everything when it has told that the table is gone.
    """
    seen: dict[str, list[Any]] = {}
    changed = threading.Condition()

    def record(kind: str) -> Callable[[Any], None]:
        def callback(value: Any) -> None:
            with changed:
                seen.setdefault(kind, []).append(value)
                changed.notify_all()

        return callback

    def wait(condition: Callable[[], bool], poke: Callable[[], object] = lambda: None) -> None:
        with changed:
            for _ in range(int(DEADLINE / 0.2)):
                if condition():
                    return
                poke()
                changed.wait(0.2)
            pytest.fail(f"not within {DEADLINE} s: {seen}")

    table = gpudb.GPUdbTable(COLUMNS, name, db=db)
    spare = [100, *ROWS[1][1:]]
    kinds = package.Callback.Type
    options = package.Callback.InsertDecodedOptions(
        package.Callback.InsertDecodedOptions.DecodeFailureMode.SKIP
    )
    callbacks = [
        package.Callback(kinds.INSERT_DECODED, record("INSERT_DECODED"), record("error"), options),
        *(
            package.Callback(kind, record(kind.name), record("error"))
            for kind in (kinds.INSERT_RAW, kinds.UPDATED, kinds.DELETED, kinds.TABLE_DROPPED)
        ),
    ]
    settings = package.Options(_dict={"monitor_port": port, "inactivity_timeout": 0.005})
    client = construct(lambda: package.Client(db, name, callbacks, settings))
    client.logging_level = logging.ERROR
    client.start_monitor()
    # The official client's three subscriptions take effect in their own time, so each is tried first.
    wait(lambda: "INSERT_DECODED" in seen, lambda: table.insert_records([spare]))
    wait(lambda: "UPDATED" in seen, lambda: table.update_records(["id >= 100"], [{"s": "x"}]))
    wait(
        lambda: "DELETED" in seen,
        lambda: (table.insert_records([spare]), table.delete_records(["id >= 100"])),
    )
    table.delete_records(["id >= 100"])
    table.insert_records([[99, *ROWS[1][1:]]])
    wait(lambda: seen["INSERT_DECODED"][-1]["id"] == 99)
    with changed:
        trial = {kind: len(values) for kind, values in seen.items()}
    table.insert_records(ROWS)
    table.update_records(["id < 99"], [{"s": "new"}])
    table.delete_records(["id = 2"])
    wait(lambda: all(len(seen[kind]) >= trial[kind] + more for kind, more in MORE.items()))
    table.clear()
    wait(lambda: len(seen.get("TABLE_DROPPED", ())) == threads)
    client.stop_monitor()
    with changed:
        return {kind: values[-MORE.get(kind, 1) :] for kind, values in seen.items()}


#: How many calls of each callback the part of the script makes that counts.
MORE = {"INSERT_DECODED": 3, "INSERT_RAW": 3, "UPDATED": 1, "DELETED": 1}


def test_the_same_script_gives_the_same_results(server: TableServer) -> None:
    db = gpudb.GPUdb(host=server.url)
    port = server.monitor_port
    official = script(gpudb.GPUdbTableMonitor, db, "ki_home.official", port, threads=3)
    ours = script(GPUdbTableMonitor, db, "ki_home.ours", port, threads=1)
    assert set(ours) == {"INSERT_DECODED", "INSERT_RAW", "UPDATED", "DELETED", "TABLE_DROPPED"}
    for kind in MORE:
        assert ours[kind] == official[kind], kind
        assert list(map(type, ours[kind])) == list(map(type, official[kind]))
    assert [list(row.items()) for row in ours["INSERT_DECODED"]] == [
        list(row.items()) for row in official["INSERT_DECODED"]
    ]
    # Of each of its three threads one, where ours tells once (the specification's fault list, 6).
    assert official["TABLE_DROPPED"] == ["Table ki_home.official does not exist anymore ..."]
    assert ours["TABLE_DROPPED"] == ["Table ki_home.ours does not exist anymore"]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda package, db: package.Client(None, "t", []),
        lambda package, db: package.Client(db, "", []),
        lambda package, db: package.Client(db, "ki_home.missing", []),
        lambda package, db: package.Callback("DELETED", print),
        lambda package, db: package.Callback(package.Callback.Type.DELETED, 7),
        lambda package, db: package.Callback(package.Callback.Type.DELETED, print, 7),
        lambda package, db: package.Callback(package.Callback.Type.DELETED, print, print, 7),
        lambda package, db: package.Callback.InsertDecodedOptions("SKIP"),
        lambda package, db: package.Options(_dict=[]),
        lambda package, db: package.Options(_dict={"unknown": 1}),
        lambda package, db: package.Options(_dict={"inactivity_timeout": -1}),
        lambda package, db: package.Options(_dict={"inactivity_timeout": "x"}),
        lambda package, db: package.Options(_dict={"max_retries": "x"}),
    ],
)
def test_both_raise_the_official_exception(server: TableServer, misuse: Callable[[Any, Any], Any]) -> None:
    db = gpudb.GPUdb(host=server.url)
    for package in (gpudb.GPUdbTableMonitor, GPUdbTableMonitor):
        with pytest.raises(gpudb.GPUdbException):
            misuse(package, db)
