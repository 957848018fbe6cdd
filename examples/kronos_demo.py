"""Every call of the Kronos client, against an embedded event store: `.venv/bin/python examples/kronos_demo.py`."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from protocols.kronos.server import EventStore
from tablecast import ID_FIELD, TIMESTAMP_FIELD, KronosClient, ResultOrder
from tablecast.kronos import (
    MAX_TIME,
    InvalidEvent,
    RecordsRejected,
    datetime_to_kronos_time,
    kronos_time_now,
    kronos_time_to_datetime,
    timedelta_to_kronos_time,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def blocking(url: str) -> None:
    """Each call waits for the server."""
    with KronosClient(url) as client:
        print("index:", client.index()["service"], "with", *client.index()["storage"])
        reply = client.put(
            {
                "flights": [{"carrier": "UA", "n": n, TIMESTAMP_FIELD: NOON + n * MINUTE} for n in range(5)],
                "weather": [{"temperature": 21.5}],  # its time is that of the call
            }
        )
        assert reply is not None
        print("put:", {stream: reply[stream] for stream in ("flights", "weather")})
        print("get_streams:", *sorted(client.get_streams()))

        # Times are datetimes, text, or integers of 100 ns since 1970; both ends are included.
        events = list(client.get("flights", NOON, "2026-01-01T12:03:00Z"))
        print("get:", [event["n"] for event in events])
        latest = client.get("flights", 0, MAX_TIME, limit=2, order=ResultOrder.DESCENDING)
        print("get, the last two:", [event["n"] for event in latest])
        after = client.get("flights", None, MAX_TIME, start_id=events[1][ID_FIELD])
        print("get, after an id:", [event["n"] for event in after])
        print("its time:", kronos_time_to_datetime(events[0][TIMESTAMP_FIELD]))

        start = datetime_to_kronos_time(NOON)
        deleted = client.delete("flights", start, start + timedelta_to_kronos_time(MINUTE))
        print("delete:", deleted["flights"])
        schema = client.infer_schema("flights")["schema"]
        print("infer_schema:", {name: of["type"] for name, of in schema["properties"].items()})

        @client.log_function("calls", {"who": lambda name: name})
        def greet(name: str) -> str:
            return f"hello {name}"

        print("log_function:", greet("world"), end=", ")
        (call,) = client.get("calls", 0, kronos_time_now())
        print(f"by {call['who']}, took {call['duration']:.6f} s")
        with client.log_scope("scopes", {"step": "load"}) as event:
            event["rows"] = 3
        (scope,) = client.get("scopes", 0, kronos_time_now())
        print(f"log_scope: {scope['step']}, {scope['rows']} rows")


def nonblocking(url: str) -> None:
    """Puts return at once; a thread sends, again if need be. What is left is sent at the end of the process."""
    client = KronosClient(url, blocking=False, sleep_block=0.05, namespace="other")
    client.on("flush", lambda event: print("flush event:", len(event.records), "events stored"))
    client.on("error", lambda event: print("error event:", event.error or event.rejections[0].reason))
    for n in range(1000):
        client.put({"counts": [{"n": n}]})
    client.flush()
    print("stored in order:", [e["n"] for e in client.get("counts", 0, MAX_TIME)] == list(range(1000)))
    try:
        client.put({"counts": [{"n": 5}, {"n": float("nan")}]})
    except InvalidEvent as error:
        print("misuse:", error)
    client.put({"counts": [{"n": -1}]}, namespace="unheard-of")
    try:
        client.close()
    except RecordsRejected as error:
        print("close:", error.rejections[0].record.event["n"], "came back")


with (
    tempfile.TemporaryDirectory() as folder,
    EventStore(data_dir=Path(folder), port=0, namespaces=("kronos", "other")) as store,
):
    blocking(store.url)
    nonblocking(store.url)
