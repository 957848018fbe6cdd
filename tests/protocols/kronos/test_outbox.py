"""Puts that nobody waits for, into the real store, through a proxy that misbehaves, and from processes that end."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from protocols.accumulator import BufferFull, Limits
from protocols.batching import Closed, DeliveryEvent, NotDelivered, RecordsRejected
from protocols.kronos import outbox
from protocols.kronos.client import KronosClient
from protocols.kronos.errors import EventsRefused, KronosError, RequestRefused
from protocols.kronos.server import EventStore
from protocols.kronos.wire import MAX_TIME
from tests.faults import AFTER, BEFORE, Proxy, proxy

DEADLINE = 20.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quick:
        def __init__(self, **settings: Any) -> None:
            pass

        def delay(self, failures: int) -> float:
            return 0.001

    monkeypatch.setattr(outbox, "Backoff", Quick)


@pytest.fixture
def reader(store: EventStore) -> Iterator[KronosClient]:
    with KronosClient(store.url, timeout=DEADLINE) as client:
        yield client


def nonblocking(url: str, **settings: Any) -> KronosClient:
    return KronosClient(url, blocking=False, sleep_block=0.0, **{"timeout": DEADLINE, **settings})


def numbers(reader: KronosClient, stream: str, namespace: str | None = None) -> list[int]:
    return [event["n"] for event in reader.get(stream, 0, MAX_TIME, namespace=namespace)]


def test_events_arrive_in_order_by_stream_and_namespace(store: EventStore, reader: KronosClient) -> None:
    with nonblocking(store.url) as client:
        for n in range(50):
            assert client.put({"a": [{"n": 2 * n}, {"n": 2 * n + 1}], "b": [{"n": n}]}) is None
            client.put({"a": [{"n": n}]}, namespace="other")
        client.flush(DEADLINE)
        assert client.pending == 0
        assert numbers(reader, "a") == list(range(100))
        assert numbers(reader, "b") == numbers(reader, "a", "other") == list(range(50))
        first = next(reader.get("a", 0, MAX_TIME))
    assert first["@library"]["name"] == "tablecast"
    assert first["@origin"].startswith("client/put:")


@pytest.mark.parametrize("fault", sorted({*BEFORE, *AFTER} - {"503 date", "slow head"}))
def test_nothing_is_lost_or_doubled_by_faults(fault: str, store: EventStore, reader: KronosClient) -> None:
    hopeless = fault in ("hang", "slow body")
    with proxy(store.url, ["", fault, fault]) as faulty:
        kinds: list[str] = []
        with nonblocking(
            faulty.url, timeout=0.3 if hopeless else DEADLINE, limits=Limits(5, 10_000)
        ) as client:
            for kind in ("send", "flush", "error"):
                client.on(kind, lambda event: kinds.append(event.kind))  # type: ignore[arg-type]
            for n in range(20):
                client.put({"s": [{"n": n}]})
            client.flush(DEADLINE)
        assert numbers(reader, "s") == list(range(20))
        assert kinds.count("error") == 2
        assert kinds.count("send") == kinds.count("flush") + 2


def test_of_two_namespaces_only_the_failed_one_is_sent_again(store: EventStore, reader: KronosClient) -> None:
    with (
        proxy(store.url, ["", "500"]) as faulty,
        nonblocking(faulty.url, limits=Limits(linger=60.0)) as client,
    ):
        client.put({"s": [{"n": 1}]}, "kronos")
        client.put({"s": [{"n": 2}]}, "other")
        client.flush(DEADLINE)
        assert [b'"namespace":"kronos"' in body for body in faulty.stored] == [True, False]
    assert numbers(reader, "s", "kronos") + numbers(reader, "s", "other") == [1, 2]


def test_an_unknown_namespace_comes_back_and_the_others_go_on(
    store: EventStore, reader: KronosClient
) -> None:
    told: list[DeliveryEvent[Any]] = []
    with nonblocking(store.url, limits=Limits(linger=60.0)) as client:
        client.on("error", told.append)
        client.put({"s": [{"n": 1}]})
        client.put({"s": [{"n": 2}, {"n": 3}]}, namespace="nope")
        client.put({"s": [{"n": 4}]})
        with pytest.raises(RecordsRejected, match="NamespaceMissing") as caught:
            client.flush(DEADLINE)
        assert [r.record.event["n"] for r in caught.value.rejections] == [2, 3]
        assert [r.record.namespace for r in told[0].rejections] == ["nope", "nope"]
        client.flush(DEADLINE)
    assert numbers(reader, "s") == [1, 4]


class Answers:
    """A server's answers to puts, in place of a server."""

    def __init__(self, client: KronosClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[KronosError | None] = []
        send = client.put_encoded

        def answer(body: bytes) -> Any:
            failure = self.failures.pop(0) if self.failures else None
            if failure is not None:
                raise failure
            return send(body)

        assert client._outbox is not None
        monkeypatch.setattr(client._outbox, "_send_body", answer)


def test_what_one_request_cannot_hold_is_sent_in_halves(
    store: EventStore, reader: KronosClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nonblocking(store.url, limits=Limits(linger=60.0)) as client:
        answers = Answers(client, monkeypatch)
        # Of 4: all of them refused, the first half taken, the other refused, then 2 refused and 3 taken.
        refused = [RequestRefused("too large", status=413) for _ in range(3)]
        answers.failures = [refused[0], None, refused[1], refused[2], None]
        client.put({"s": [{"n": n} for n in range(4)]})
        with pytest.raises(RecordsRejected, match="too large") as caught:
            client.flush(DEADLINE)
        assert [rejection.record.event["n"] for rejection in caught.value.rejections] == [2]
    assert numbers(reader, "s") == [0, 1, 3]


def test_events_that_only_the_server_refuses_come_back(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nonblocking(store.url, limits=Limits(linger=60.0)) as client:
        answers = Answers(client, monkeypatch)
        reply = {"@success": False, "a": {"m": {"num_inserted": 2}}, "b": {"m": {"num_inserted": 1}}}
        answers.failures = [EventsRefused("rules of its own", status=200, reply=reply)]
        client.put({"a": [{"n": 0}, {"n": 1}], "b": [{"n": 2}, {"n": 3}], "c": [{"n": 4}]})
        with pytest.raises(RecordsRejected, match=r"rules of its own; of 2 to b some") as caught:
            client.flush(DEADLINE)
        assert [rejection.record.event["n"] for rejection in caught.value.rejections] == [2, 3, 4]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_everything_is_asked_again(
    status: int, store: EventStore, reader: KronosClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[DeliveryEvent[Any]] = []
    with nonblocking(store.url) as client:
        client.on("error", told.append)
        Answers(client, monkeypatch).failures = [RequestRefused("no", status=status)] * 3
        client.put({"s": [{"n": 1}]})
        client.flush(DEADLINE)
    assert [event.rejections for event in told] == [(), (), ()]
    assert numbers(reader, "s") == [1]


def test_a_server_that_is_away_fills_the_buffer_and_loses_nothing(
    store: EventStore, reader: KronosClient
) -> None:
    with proxy(store.url) as away:
        away.stop()
        with nonblocking(away.url, limits=Limits(buffer_bytes=2000)) as client:
            put = 0
            with contextlib.suppress(BufferFull):
                while True:
                    client.put({"s": [{"n": put}]})
                    put += 1
            assert put > 3
            with pytest.raises(NotDelivered, match="is the server running") as caught:
                client.flush(0.05)
            assert caught.value.pending == put
            assert "no connection" in str(client.problem)
            away.start()
            client.put({"s": [{"n": put}]}, timeout=DEADLINE)
            client.flush(DEADLINE)
            assert client.problem is None
    assert numbers(reader, "s") == list(range(put + 1))


def test_a_handler_that_raises_harms_nobody(
    store: EventStore, reader: KronosClient, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(event: Any) -> None:
        raise SystemExit("handler")

    with nonblocking(store.url) as client:
        client.on("send", bad).on("flush", bad)
        for n in range(3):
            client.put({"s": [{"n": n}]})
            with caplog.at_level(logging.CRITICAL):
                client.flush(DEADLINE)
    assert numbers(reader, "s") == [0, 1, 2]


def test_many_threads(store: EventStore, reader: KronosClient) -> None:
    with nonblocking(store.url) as client:

        def work(number: int) -> None:
            for n in range(100):
                client.put({f"s{number}": [{"n": n}]})
                if n % 40 == 0:
                    client.flush(DEADLINE)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    for number in range(4):
        assert numbers(reader, f"s{number}") == list(range(100))


def test_close_delivers_and_ends(store: EventStore, reader: KronosClient) -> None:
    client = nonblocking(store.url, limits=Limits(linger=60.0))
    client.put({"s": [{"n": 1}]})
    client.close(DEADLINE)
    client.close()
    for call in (lambda: client.put({"s": []}), client.flush, client.index, client.get_streams):
        with pytest.raises(Closed, match="is closed; make another"):
            call()
    assert numbers(reader, "s") == [1]


def test_an_own_origin_stays(store: EventStore, reader: KronosClient) -> None:
    with nonblocking(store.url) as client:
        client.put({"s": [{"n": 1, "@origin": "mine/7"}, {"n": 2, "x": {"@origin": "inner"}}]})
    origins = [event["@origin"] for event in reader.get("s", 0, MAX_TIME)]
    assert origins[0] == "mine/7"
    assert origins[1].startswith("client/put:")


# -- processes that end ------------------------------------------------------------------------------------------------

EXITING = """
import logging, multiprocessing, os, sys
logging.basicConfig(format="%(message)s")
from protocols.accumulator import Limits
from protocols.kronos.client import KronosClient

def put(stream):
    client.put({stream: [{"n": n} for n in range(300)]})

client = KronosClient(sys.argv[1], blocking=False, limits=Limits(linger=60.0), exit_timeout=float(sys.argv[3]))
put("parent")
match sys.argv[2]:
    case "error":
        raise ValueError("of the script")
    case "fork":
        if not (child := os.fork()):
            put("child")
            sys.exit()
        os.waitpid(child, 0)
    case "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=put, args=("child",))
        child.start()
        child.join()
"""


def run(url: str, how: str, seconds: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", EXITING, url, how, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize("how", ["error", "fork", "multiprocessing"])
def test_a_process_that_ends_loses_nothing(how: str, store: EventStore, reader: KronosClient) -> None:
    done = run(store.url, how)
    assert done.returncode == (how == "error"), done.stderr
    assert ("ValueError: of the script" in done.stderr) == (how == "error")
    streams = ["parent", "child"] if how in ("fork", "multiprocessing") else ["parent"]
    assert sorted(reader.get_streams()) == sorted(streams)
    for stream in streams:
        assert numbers(reader, stream) == list(range(300))
    origins = {
        event["@origin"].split("/")[1] for stream in streams for event in reader.get(stream, 0, MAX_TIME)
    }
    assert len(origins) == len(streams)


def test_a_process_that_ends_does_not_wait_for_ever(store: EventStore) -> None:
    gone = Proxy(store.url)
    gone.stop()
    done = run(gone.url, "end", 0.2)
    assert done.returncode == 0
    assert "at exit: 300 records not delivered within 0.2 s: " in done.stderr
