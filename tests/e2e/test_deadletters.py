"""What does not decode: a table that aborts and is resumed, blocks that kill decoders, dead letters replayed."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import msgpack
import numpy as np
import pyarrow as pa
import pytest
import ray
from click.testing import CliRunner, Result

from actors.batch import Batch, Rejected
from actors.block import Block
from actors.codec.decoder import Decoder, all_or_nothing
from actors.codec.isolated import Limits, decode_isolated
from actors.monitor.dispatch import Dispatcher
from actors.monitor.kinetica import block_schema
from actors.monitor.ray_transport import RayTransport
from actors.monitor.spool import Spool
from actors.names import NAMESPACE, decoder_name, monitor_name, writer_name
from actors.writer.actor import WriterActor
from cluster import control
from cluster.cli.main import main
from cluster.config import PipelineConfig
from cluster.supervisor.plan import decoder_specs
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from protocols.kronos.client import KronosClient
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

DOCUMENT = TableType((Column("id", "long"), Column("doc", "string", False, ("json",))))
_SCHEMA = fastavro.parse_schema(DOCUMENT.avro)

Tablecast = Callable[..., Result]


@pytest.fixture
def tablecast(monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> Tablecast:
    """Runs the command in this process, on the cluster of the tests."""
    monkeypatch.setattr(control, "connect", lambda address: address)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return result

    return run


def document(number: int, text: str = "{}") -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _SCHEMA, {"id": number, "doc": text})
    return out.getvalue()


def ids(kronos: KronosClient, stream: str) -> list[int]:
    return [event["id"] for event in traffic.events(kronos, stream)]


def table_status(supervisor: Any, name: str) -> dict[str, Any]:
    tables = control.ask(supervisor, "status")["tables"]
    return next(table for table in tables if table["name"] == name)


def test_a_table_aborts_alone_until_it_is_resumed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    tablecast: Tablecast,
) -> None:
    strict, lenient = f"{unique}a", f"{unique}b"
    for table in (strict, lenient):
        kinetica.create_table(table, kinetica.create_type(DOCUMENT))
    tables = [{"name": strict, "on_decode_failure": "abort"}, lenient]
    supervisor = start(make_config(unique, tables))

    def insert(numbers: range, bad: int) -> None:
        for table in (strict, lenient):
            kinetica.insert_records(table, [document(n, "NaN" if n == bad else "{}") for n in numbers])

    def aborted() -> dict[str, Any] | None:
        status = table_status(supervisor, strict)
        return status if status["state"] == "aborted" else None

    insert(range(10), bad=-1)
    wait_until(lambda: ids(kronos, strict) == ids(kronos, lenient) == list(range(10)), "good rows stored")
    insert(range(10, 20), bad=13)
    status = wait_until(aborted, "the table aborted")
    epoch = status["epoch"]
    assert status["aborted"] == {
        "origin": f"{unique}/{strict}/{epoch}/13",
        "reason": "column doc: 'NaN' is not a valid json",
        "records": 1,
    }
    assert f"{unique}/{strict}/{epoch}/13 did not decode: column doc" in status["problem"]
    insert(range(20, 30), bad=-1)
    good = [n for n in range(30) if n != 13]
    wait_until(lambda: ids(kronos, lenient) == good, "the other table goes on")
    wait_until(lambda: table_status(supervisor, strict)["received"] == 30, "receiving goes on")
    assert table_status(supervisor, lenient)["state"] == "receiving"
    wait_until(lambda: table_status(supervisor, lenient)["dead_letters"] == 1, "its bad record is kept")

    assert f"{strict} to events goes on" in tablecast("resume", unique, strict).output
    # Asked directly: what the supervisor knows may be of before.
    monitor = ray.get_actor(monitor_name(unique, strict), NAMESPACE)
    lanes = lambda: ray.get(monitor.status.remote([strict]), timeout=DEADLINE)[strict]["lanes"]  # noqa: E731
    wait_until(lambda: any(lane["aborted"] for lane in lanes()), "it aborted again, as nothing was mended")
    before = ids(kronos, strict)
    assert before == list(range(len(before)))
    assert 10 <= len(before) <= 13
    assert table_status(supervisor, strict)["dead_letters"] == 0

    assert f"{strict} to events goes on" in tablecast("resume", unique, strict, "--skip").output
    wait_until(lambda: ids(kronos, strict) == good, "all but the skipped record stored")
    wait_until(lambda: table_status(supervisor, strict)["state"] == "receiving", "nothing is aborted")
    wait_until(lambda: table_status(supervisor, strict)["dead_letters"] == 1, "the skipped record is kept")
    insert(range(30, 40), bad=31)
    assert wait_until(aborted, "abort is still in force")["aborted"]["origin"].endswith("/31")
    assert "has no table or sink nothing" in tablecast("resume", unique, "nothing", code=2).output
    assert "--skip needs a TABLE" in tablecast("resume", unique, "--skip", code=2).output


@ray.remote(num_cpus=0.1, concurrency_groups={"control": 1})
class PickyDecoder:
    """A decoder with a defect, in the place of a pipeline's own: it rejects some rows that are good."""

    def __init__(self, digest: str, unwanted: set[int]) -> None:
        self._digest = digest
        self._unwanted = unwanted
        self._decoder = Decoder()
        self._blocks = 0

    def decode(self, block: Block, strict: bool) -> Batch:
        batch = self._decoder.decode(block)
        self._blocks += 1
        bad = np.isin(batch.rows.column("id").to_numpy(), list(self._unwanted))
        frames = msgpack.unpackb(block.payload)
        reason = f"a defect, seen in block {self._blocks}"
        rejects = tuple(Rejected(block.offset + n, reason, frames[n]) for n in np.flatnonzero(bad).tolist())
        rows = batch.rows.filter(pa.array(~bad))
        batch = replace(batch, rows=rows, positions=np.flatnonzero(~bad), rejects=rejects)
        return all_or_nothing(batch) if strict else batch

    @ray.method(concurrency_group="control")
    def start(self) -> None:
        pass

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "digest": self._digest}

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        pass


def test_dead_letters_are_replayed_after_the_decoder_is_mended_though_the_monitor_is_killed(
    start: Callable[[PipelineConfig], Any],
    make_config: Callable[..., PipelineConfig],
    unique: str,
    kinetica: KineticaClient,
    kronos: KronosClient,
    kronos_url: str,
    tablecast: Tablecast,
) -> None:
    traffic.create(kinetica, unique)
    sinks = {
        name: {"kronos": {"url": kronos_url, "namespace": namespace}}
        for name, namespace in (("first", "kronos"), ("second", "other"))
    }
    config = make_config(unique, [unique], sinks=sinks, decoders={"min": 1})
    (spec,) = decoder_specs(config, 1)
    unwanted = {5, 6, 150, 151, 199}
    picky: Any = PickyDecoder.options(name=spec.name, namespace=NAMESPACE, lifetime="detached").remote(
        spec.digest, unwanted
    )
    pid = ray.get(picky.status.remote(), timeout=DEADLINE)["pid"]
    supervisor = start(config)
    for first in (0, 100):
        kinetica.insert_records(unique, [traffic.frame(n) for n in range(first, first + 100)])
    wait_until(lambda: len(ids(kronos, unique)) == 195, "the rows that decode stored")
    wait_until(lambda: table_status(supervisor, unique)["dead_letters"] == 5, "five dead letters")

    listed = json.loads(tablecast("deadletters", unique, "ls", "--table", unique, "--json").output)
    assert listed["counts"] == {"waiting": 5}
    assert [letter["origin"].rsplit("/", 1)[1] for letter in listed["dead_letters"]] == [
        "5", "6", "150", "151", "199",
    ]  # fmt: skip
    first = listed["dead_letters"][0]
    assert "5 waiting; 2 shown" in tablecast("deadletters", unique, "ls", "--limit", "2").output
    shown = tablecast("deadletters", unique, "show", first["origin"]).output
    assert traffic.frame(5).hex() in shown
    assert "id (long) = 5" in shown
    assert "every column can be read" in shown

    failed = tablecast("deadletters", unique, "replay", first["origin"], code=1)
    assert "1 replayed: 0 delivered, 1 failed again" in failed.output
    (again,) = (
        letter
        for letter in json.loads(tablecast("deadletters", unique, "ls", "--json").output)["dead_letters"]
        if letter["origin"] == first["origin"]
    )
    assert again["reason"] != first["reason"]
    assert (again["failed"] > first["failed"], again["received"]) == (True, first["received"])

    os.kill(pid, signal.SIGKILL)  # the supervisor starts a real one: the defect is mended
    monitor = ray.get_actor(monitor_name(unique, unique), NAMESPACE)
    monitor_pid = ray.get(monitor.status.remote([unique]), timeout=DEADLINE)[unique]["pid"]
    assert ray.get(monitor.replay.remote(unique, None), timeout=DEADLINE)[unique][1] == 5
    os.kill(monitor_pid, signal.SIGKILL)
    wait_until(lambda: table_status(supervisor, unique)["state"] == "receiving", "the monitor is back")

    def replayed() -> bool:
        done = CliRunner().invoke(main, ["deadletters", unique, "ls", "--json"])
        return done.exit_code == 0 and json.loads(done.output)["counts"] == {"done": 5}

    wait_until(replayed, "all replayed")
    for namespace in ("kronos", "other"):
        stored = traffic.events(kronos, unique, namespace)
        assert sorted(event["id"] for event in stored) == list(range(200))
        # In the place of their receipt, not of their replay.
        by_time = sorted(stored, key=lambda event: event["@time"])
        assert [event["id"] for event in by_time] == list(range(200))
        assert sorted(int(event["@origin"].rsplit("/", 1)[1]) for event in stored) == list(range(200))
    wait_until(lambda: table_status(supervisor, unique)["dead_letters"] == 0, "the status knows")
    assert "0 replayed" in tablecast("deadletters", unique, "replay").output
    wrong = f"{unique}/{unique}/1/1"
    assert f"no dead letter {wrong}" in tablecast("deadletters", unique, "show", wrong, code=2).output


ROWS = 50
POISON = 77


@ray.remote(num_cpus=0.1, concurrency_groups={"control": 1})
class MortalDecoder:
    """A decoder whose process dies of one frame, as of a defect in native code."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoder = Decoder()

    def decode(self, block: Block, strict: bool) -> Batch:
        if traffic.frame(POISON) in msgpack.unpackb(block.payload):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._decoder.decode(block)

    def decode_isolated(self, block: Block, strict: bool) -> Batch:
        # The limits of the test are for the one that kills; others may have been with it by chance.
        killer = traffic.frame(POISON) in msgpack.unpackb(block.payload)
        return decode_isolated(block, self._limits if killer else Limits())

    @ray.method(concurrency_group="control")
    def ready(self) -> None:
        pass


@pytest.mark.parametrize("limits", [Limits(), Limits(memory=64 << 20)], ids=["sound", "fails-alone-too"])
def test_a_block_that_kills_two_decoders_is_decoded_alone_and_the_rest_goes_on(
    ray_cluster: None, unique: str, kronos: KronosClient, kronos_url: str, tmp_path: Path, limits: Limits
) -> None:
    options = {"namespace": NAMESPACE, "num_cpus": 0.1}
    decoders = [
        MortalDecoder.options(name=decoder_name(unique, n), **options).remote(limits) for n in range(3)
    ]
    sink = {"kronos": {"url": kronos_url}}
    writer: Any = WriterActor.options(name=writer_name(unique, "events"), **options).remote(unique, sink, "")  # type: ignore[attr-defined]
    ray.get([writer.start.remote(), *(decoder.ready.remote() for decoder in decoders)], timeout=DEADLINE)
    schema = block_schema(traffic.ROW.definition, traffic.ROW.properties)
    feeds = {f"{unique}p": 0, f"{unique}q": 1000}
    spool = Spool(tmp_path)
    for feed, shift in feeds.items():
        for first in range(0, 4 * ROWS, ROWS):
            frames = [traffic.frame(shift + n) for n in range(first, first + ROWS)]
            spool.append([Block(feed, 1, first, ROWS, 10**16 + first, "avro", schema, msgpack.packb(frames))])
    dispatcher = Dispatcher(spool, ["events"], RayTransport(unique, 1, len(decoders)))
    worker = threading.Thread(target=dispatcher.run)
    worker.start()
    try:
        wait_until(lambda: not any(r.pending_records for r in dispatcher.report()), "all blocks past")
    finally:
        dispatcher.stop()
        worker.join(timeout=30)
    alive = 0
    for decoder in decoders:
        try:
            ray.get(decoder.ready.remote(), timeout=DEADLINE)
            alive += 1
        except ray.exceptions.RayActorError:
            pass
    assert alive == 1
    poisoned = range(ROWS, 2 * ROWS)
    good = [n for n in range(4 * ROWS) if limits == Limits() or n not in poisoned]
    assert ids(kronos, f"{unique}p") == good
    assert ids(kronos, f"{unique}q") == list(range(1000, 1000 + 4 * ROWS))
    _, letters = spool.letters.list(1000)
    assert [letter.offset for letter in letters] == [n for n in poisoned if n not in good]
    assert all("also in a process of its own: " in letter.reason for letter in letters)
    spool.close()
    for actor in (*decoders, writer):
        ray.kill(actor)
