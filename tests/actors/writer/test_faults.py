"""The writer, the Kronos sink and a real event store, with a network in between that does its worst."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.backoff import Backoff
from actors.batch import Batch, Receipt
from actors.block import BlockId
from actors.errors import DeliveryRefused
from actors.writer.sinks.kronos import KronosSink
from actors.writer.throttle import THRESHOLD
from actors.writer.writer import Writer
from protocols.kronos.client import KronosClient
from protocols.kronos.server import EventStore
from protocols.kronos.wire import MAX_TIME
from tests.faults import AFTER, BEFORE, Proxy, proxy

DEADLINE = 60.0
#: Of requests that are to time out, and of those that are not, however busy the machine is.
SHORT, LONG = 0.4, 30.0
FEEDS = ("a", "b", "c")
ROWS = 20
OWNER = (1, 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    with EventStore(data_dir=tmp_path_factory.mktemp("store"), port=0, namespaces=("kronos",)) as running:
        yield running


def batch(feed: str, number: int, values: list[Any] | None = None) -> Batch:
    """The `number`th block of a feed."""
    first = number * ROWS
    rows = pa.RecordBatch.from_pydict({"n": values or list(range(first, first + ROWS))})
    return Batch(BlockId(feed, 1, first), ROWS, 1000 + first, rows, np.arange(ROWS), ())


async def send(writer: Writer, feed: str, blocks: int) -> list[Receipt]:
    await writer.attach(feed, OWNER)
    previous: BlockId | None = None
    calls = []
    for number in range(blocks):
        sent = batch(feed, number)
        calls.append(writer.write(OWNER, sent.id, previous, sent))
        previous = sent.id
    return await asyncio.gather(*calls)


def deliver(url: str, pipeline: str, blocks: int, timeout: float = LONG, **settings: Any) -> Writer:
    """Deliver so many blocks of each feed; the writer comes back closed."""

    async def main() -> Writer:
        sink = KronosSink(pipeline, url, timeout=timeout, batch=ROWS // 2, **settings)
        writer = Writer(sink, Backoff(0.005, 0.05, floor=0.0))
        try:
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*(send(writer, f"{pipeline}.{feed}", blocks) for feed in FEEDS))
        finally:
            await writer.close()
        return writer

    return asyncio.run(main())


def assert_stored(store: EventStore, pipeline: str, blocks: int) -> None:
    """Every row of every feed is there once, in order."""
    with KronosClient(store.url) as client:
        for feed in FEEDS:
            events = list(client.get(f"{pipeline}.{feed}", 0, MAX_TIME))
            assert [event["n"] for event in events] == list(range(blocks * ROWS))
            assert [int(event["@origin"].rpartition("/")[2]) for event in events] == list(
                range(blocks * ROWS)
            )


def assert_in_order(origins: list[str]) -> None:
    """Each feed's events came in order, but for those that came again."""
    first = list(dict.fromkeys(origins))
    for prefix in {origin.rpartition("/")[0] for origin in first}:
        offsets = [int(o.rpartition("/")[2]) for o in first if o.startswith(f"{prefix}/")]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize("fault", [*BEFORE, *AFTER])
def test_each_fault_alone(store: EventStore, fault: str) -> None:
    name = f"alone-{fault.replace(' ', '-')}"
    endless = fault in ("hang", "slow body", "slow head")
    with proxy(store.url, ["", fault, "", fault]) as network:
        writer = deliver(network.url, name, blocks=3, timeout=SHORT if endless else LONG)
        assert network.happened[fault] == 2
        origins = network.origins()
    assert_stored(store, name, blocks=3)
    assert_in_order(origins)
    doubled = {origin: count for origin, count in Counter(origins).items() if count > 1}
    if fault in AFTER:  # the server had it and we could not know; the origin tells
        assert doubled
    elif not endless:
        assert not doubled
    if endless:
        assert writer.stats.retries >= 2
    else:
        assert writer.stats.retries == 2


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_server_that_refuses_everything_is_told_and_asked_again_when_resumed(
    store: EventStore, status: str
) -> None:
    name = f"refused-{status}"

    async def main(url: str) -> None:
        writer = Writer(KronosSink(name, url, timeout=LONG), Backoff(0.005, 0.05, floor=0.0))
        try:
            with pytest.raises(DeliveryRefused, match=f"status {status}.*; check "):
                await send(writer, f"{name}.a", 1)
            assert f"status {status}" in str(writer.stats.problem)
            assert writer.stats.retries == writer.stats.refused == 0
            for feed in FEEDS:
                await send(writer, f"{name}.{feed}", 2)
            assert writer.stats.problem is None
        finally:
            await writer.close()

    with proxy(store.url, [status]) as network:
        asyncio.run(main(network.url))
    assert_stored(store, name, blocks=2)


@pytest.mark.parametrize("seed", range(3))
def test_all_faults_together(store: EventStore, seed: int) -> None:
    rng = random.Random(seed)
    often = ["", "reset", "500", "unwritten", "garbage", "lost", "half"]
    plan = rng.choices(often, k=60) + rng.sample(["hang", "slow body", "slow head"], k=2)
    rng.shuffle(plan)
    name = f"together{seed}"
    with proxy(store.url, plan) as network:
        writer = deliver(network.url, name, blocks=8, timeout=SHORT)
        assert not network.plan
        origins = network.origins()
    assert writer.stats.retries >= sum(count for fault, count in network.happened.items() if fault)
    assert_stored(store, name, blocks=8)
    assert_in_order(origins)


def test_a_server_that_asks_to_wait_is_left_alone(store: EventStore) -> None:
    with proxy(store.url, ["503"]) as network:
        started = time.monotonic()
        deliver(network.url, "patience", blocks=1)
        assert time.monotonic() - started >= 1.0
        assert network.happened["503"] == 1
    assert_stored(store, "patience", blocks=1)


def test_a_server_that_is_gone_is_probed_by_one_request_at_a_time(store: EventStore) -> None:
    async def main(network: Proxy) -> None:
        writer = Writer(KronosSink("gone", network.url, timeout=LONG), Backoff(0.05, 0.1, floor=0.5))
        tasks = [asyncio.create_task(send(writer, f"gone.{feed}", 4)) for feed in FEEDS]
        async with asyncio.timeout(DEADLINE):
            while writer.status()["circuit"] == "closed":
                await asyncio.sleep(0.01)
            before, started = writer.stats.retries, time.monotonic()
            await asyncio.sleep(0.5)
            # Three feeds, yet as many attempts as one would make: each pause is at least 25 ms.
            assert writer.stats.retries - before <= (time.monotonic() - started) / 0.025 + 1
            status = writer.status()
            assert status["circuit"] in ("open", "half-open")
            assert status["in_flight"] <= 1
            assert status["concurrency"] == 1
            assert status["waiting"] == 12
            assert "is the server running?" in status["last_error"]
            assert status["retries"] >= THRESHOLD
            network.start()
            await asyncio.gather(*tasks)
        assert writer.status()["circuit"] == "closed"
        assert writer.status()["problem"] is None
        await writer.close()

    with proxy(store.url) as network:
        network.stop()
        asyncio.run(main(network))
        assert_in_order(network.origins())
    assert_stored(store, "gone", blocks=4)


def test_credentials_are_sent_and_never_shown(store: EventStore, tmp_path: Path) -> None:
    with proxy(store.url, ["500"]) as network:
        writer = deliver(network.url, "basic", blocks=1, username="ann", password="correct-horse ☃")
        deliver(network.url, "bearer", blocks=1, token="battery-staple")
        basic = "Basic YW5uOmNvcnJlY3QtaG9yc2Ug4piD"
        assert network.authorizations == {basic, "Bearer battery-staple"}
    assert "horse" not in str(writer.status())
    assert_stored(store, "basic", blocks=1)
    assert_stored(store, "bearer", blocks=1)


def test_a_namespace_that_does_not_exist_parks_and_makes_no_dead_letters(store: EventStore) -> None:
    async def main() -> None:
        writer = Writer(KronosSink("p", store.url, namespace="nope"), Backoff(0.001, 0.002))
        sent = batch("ns", 0)
        await writer.attach("ns", OWNER)
        with pytest.raises(Exception, match="NamespaceMissing"):
            await asyncio.wait_for(writer.write(OWNER, sent.id, None, sent), DEADLINE)
        assert writer.stats.refused == 0
        await writer.close()

    asyncio.run(main())


def test_what_the_store_refuses_is_found_and_the_rest_stored(store: EventStore) -> None:
    """JSON nested too deep makes a store refuse the whole request, without saying which event it was."""

    async def main() -> Receipt:
        writer = Writer(KronosSink("deep", store.url), Backoff(0.001, 0.002))
        texts = ["[" * 2000 + "]" * 2000 if n in (3, 11) else f"{n}" for n in range(ROWS)]
        field = pa.field("j", pa.large_string(), metadata={b"tablecast.type": b"json"})
        rows = pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], schema=pa.schema([field]))
        sent = Batch(BlockId("deep", 1, 0), ROWS, 1000, rows, np.arange(ROWS), ())
        await writer.attach("deep", OWNER)
        receipt = await asyncio.wait_for(writer.write(OWNER, sent.id, None, sent), DEADLINE)
        await writer.close()
        return receipt

    receipt = asyncio.run(main())
    assert [reject.offset for reject in receipt.rejects] == [3, 11]
    with KronosClient(store.url) as client:
        assert [e["j"] for e in client.get("deep", 0, MAX_TIME)] == [
            n for n in range(ROWS) if n not in (3, 11)
        ]
