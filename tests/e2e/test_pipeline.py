"""Changes made by the official client reach the event store; two pipelines, and a lost spool, lose nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import gpudb
import pytest

from cluster import control
from cluster.config import PipelineConfig
from cluster.errors import PipelineExists
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until


@pytest.fixture
def quiet() -> Iterator[None]:
    """The official client logs every call."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_inserts_updates_and_deletes_of_the_official_client_arrive(
    quiet: None,
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica_url: str,
    kronos: KronosClient,
) -> None:
    db = gpudb.GPUdb(host=kinetica_url)
    columns = [["id", "int", "primary_key"], ["name", "string", "nullable"], ["x", "double"], ["b", "bytes"]]
    table = gpudb.GPUdbTable(columns, unique, db=db)
    start(make_config(unique, [unique]))
    rows = [[n, None if n % 2 else f"é☃ {n}", n / 8, bytes([n, 255])] for n in range(20)]
    table.insert_records(rows)
    table.update_records(["id < 5"], [{"name": "new"}])
    table.delete_records(["id >= 15"])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 20, "20 inserts stored")
    updates = wait_until(lambda: traffic.events(kronos, f"{unique}.updates"), "an update stored")
    deletes = wait_until(lambda: traffic.events(kronos, f"{unique}.deletes"), "a delete stored")
    stored = traffic.events(kronos, unique)
    assert [event["id"] for event in stored] == list(range(20))
    assert [event["name"] for event in stored] == [row[1] for row in rows]
    assert [event["x"] for event in stored] == [row[2] for row in rows]
    assert stored[1]["b"] == "Af8="
    assert [event["count"] for event in updates] == [5]
    assert [event["count"] for event in deletes] == [5]
    times = [event["@time"] for event in stored]
    assert times == sorted(set(times))
    pipeline, feed, epoch, offset = stored[3]["@origin"].split("/")
    assert (pipeline, feed, offset) == (unique, unique, "3")
    assert int(epoch) > 1_700_000_000_000


def test_two_pipelines_on_one_table_into_one_store_both_deliver_all(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    for name in (f"{unique}-a", f"{unique}-b"):
        start(make_config(name, [unique]))
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(3000)])
    wait_until(lambda: len(traffic.events(kronos, unique)) >= 6000, "every row of both pipelines stored")
    stored = traffic.events(kronos, unique)
    by_pipeline = {
        name: sorted(event["id"] for event in stored if event["@origin"].startswith(f"{name}/"))
        for name in (f"{unique}-a", f"{unique}-b")
    }
    assert by_pipeline == {name: list(range(3000)) for name in by_pipeline}


def test_after_the_spool_was_deleted_a_second_run_stores_all_of_its_rows(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    config = make_config(unique, [unique])
    start(config)
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(1000)])
    wait_until(lambda: len(traffic.events(kronos, unique)) == 1000, "the first run's rows stored")
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    shutil.rmtree(config.spool.path)
    start(config)
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(1000, 2000)])
    wait_until(lambda: len(traffic.events(kronos, unique)) >= 2000, "the second run's rows stored")
    assert [event["id"] for event in traffic.events(kronos, unique)] == list(range(2000))


def test_a_second_pipeline_of_the_same_name_is_refused(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
) -> None:
    traffic.create(kinetica, unique)
    config = make_config(unique, [unique])
    start(config)
    with pytest.raises(PipelineExists, match=f"tablecast down {unique}"):
        control.start_pipeline(config)


def test_what_was_published_before_the_stop_is_delivered(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
) -> None:
    traffic.create(kinetica, unique)
    start(make_config(unique, [unique]))
    kinetica.insert_records(unique, [traffic.frame(n) for n in range(200_000)])
    assert control.stop_pipeline(unique, DEADLINE) == control.Left()
    assert [event["id"] for event in traffic.events(kronos, unique)] == list(range(200_000))


def test_the_pool_keeps_to_the_bounds_of_the_file(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
) -> None:
    traffic.create(kinetica, unique)
    supervisor = start(make_config(unique, [unique], decoders={"min": 1, "max": 2}))
    assert "bound to 1 to 2" in control.ask(supervisor, "scale", 3)
    assert control.ask(supervisor, "scale", 2) is None
