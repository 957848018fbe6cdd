"""Records per second into each sink, and what the client's process pays for them.

Ours: Arrow batches of a decoder through the writer and its sink. The peer of each: what its official client, or a user
without one, does with the same records as dicts, one by one. Both talk to the same server, which has a process of its
own; decoding is in neither (see ``decode.py`` for that).

============  ================================================================================================
panoply       the SDK's algorithm: ``write`` serialises and quotes a record into a queue, a thread joins what it
              takes out and posts above 256,000 characters, a connection for each. The server is a bare one of
              this file: it checks nothing but decodes each message and answers its digest, as moto's would be
              the limit of both sides
v3io          streams by the official package: ``put_records`` of 16 records and, apart, of 1,000 (its most)
v3io kv       items by the official package: a batch of 16 ``kv.put``, then ``wait``; the embedded server is the
              limit of ours
kronos        events built one by one, puts of 1,000 of them with requests
parquet       20,000 dicts to a table, a file of each
console       ``json.dumps`` of each record to a file
============  ================================================================================================
"""

from __future__ import annotations

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as in actors

import argparse
import asyncio
import base64
import binascii
import hashlib
import json
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import requests
import v3io.dataplane
from report import report

from actors.batch import Batch
from actors.block import BlockId
from actors.writer.sinks import make_sink
from actors.writer.writer import Writer

ROOT = Path(__file__).parent.parent

#: Records in a batch, as in a block of the pipeline.
BLOCK = 20_000

#: Batches per round: ours, and of the peer as far as it is slower.
OURS = {"panoply": 6, "v3io": 4, "v3io kv": 1, "kronos": 4, "parquet": 10, "console": 10}
PEERS = {
    "panoply": 1,
    "v3io of 16": 1,
    "v3io of 1000": 2,
    "v3io kv": 1,
    "kronos": 2,
    "parquet": 3,
    "console": 3,
}

APIKEY = "acct/rand1"
SECRET = base64.b64encode(b"rand2/uuid/123456789012/us-east-1").decode()

_SERVERS = {
    "v3io": """
import sys
from protocols.v3io.server import V3ioServer
with V3ioServer(port=0) as server:
    print(server.url, flush=True)
    sys.stdin.read()
""",
    "kronos": """
import sys, tempfile
from protocols.kronos.server import EventStore
with tempfile.TemporaryDirectory(dir=".") as folder, EventStore(data_dir=folder, port=0) as store:
    print(store.url, flush=True)
    sys.stdin.read()
""",
    "sqs": """
import sys
sys.path.insert(0, "benchmarks")
from writers import serve_sqs
serve_sqs()
""",
}


# -- a bare queue ----------------------------------------------------------------------------------------------------


class _Sqs(BaseHTTPRequestHandler):
    """Answers every message with its digest, and GET with how many records came."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    records = 0

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"]))
        start = form.index(b"MessageBody=") + len(b"MessageBody=")
        message = _unquoted(form[start : form.index(b"&", start)])
        _Sqs.records += message.count(b"\n\n")
        digest = hashlib.md5(message, usedforsecurity=False).hexdigest()
        self._reply(
            f"<SendMessageResponse><MD5OfMessageBody>{digest}</MD5OfMessageBody></SendMessageResponse>"
        )

    def do_GET(self) -> None:
        self._reply(str(_Sqs.records))

    def _reply(self, text: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write((head + text).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _unquoted(text: bytes) -> bytes:
    # Quoted-printable differs in its sign only, and the standard library decodes it in C.
    return binascii.a2b_qp(text.replace(b"%", b"="))


def serve_sqs() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sqs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


@contextmanager
def serving(what: str) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVERS[what]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)


# -- the records -----------------------------------------------------------------------------------------------------


def make_batch(number: int) -> Batch:
    """The batch of that number, of the columns in ``measured.md``'s record: 8, with text and nulls."""
    i = np.arange(number * BLOCK, (number + 1) * BLOCK)
    rows = pa.RecordBatch.from_pydict(
        {
            "id": i,
            "x": i / 8,
            "y": (i % 97) - 10.5,
            "distance": i % 2_500,
            "carrier": pa.array(["UA", "AA", "B6", "DL"] * (BLOCK // 4)),
            "tailnum": pa.array([None if n % 7 == 0 else f"N{n}" for n in i.tolist()]),
            "k": pa.array((i % 100).astype(np.int32)),
            "delay": pa.array([None if n % 9 == 0 else n % 60 - 5.5 for n in i.tolist()], pa.float32()),
        }
    )
    first = number * BLOCK
    time = 17_952_220_000_000_000 + first  # as a monitor gives them: strictly increasing
    return Batch(BlockId("flights", 1_795_222_000_000, first), BLOCK, time, rows, None, ())


async def deliver(sink: dict[str, Any], batches: Sequence[Batch]) -> None:
    """Write batches as a monitor does, several on their way at once."""
    writer = Writer(make_sink("bench", sink))
    try:
        await writer.attach("flights", (1, 1))
        ids = [None, *(batch.id for batch in batches)]
        async with asyncio.timeout(120):
            receipts = await asyncio.gather(
                *(writer.write((1, 1), b.id, before, b) for b, before in zip(batches, ids, strict=False))
            )
        if any(receipt.rejects for receipt in receipts):
            raise RuntimeError(f"records were refused: {receipts[0].rejects[:1]}")
    finally:
        await writer.close()


# -- the peers -------------------------------------------------------------------------------------------------------


class Sdk:
    """What Panoply's SDK does, by the description of its algorithm; only that it can be waited for."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/123456789012/sdk-acct-rand2"
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def write(self, table: str, record: dict[str, Any]) -> None:
        record = record.copy()
        record["__table"] = table
        self._queue.put(quote(json.dumps(record)) + "\n")

    def _send(self) -> None:
        body, last = "", time.time()
        while (item := self._queue.get(timeout=2.0)) is not None:
            body += item + "\n"
            if len(body) > 250 * 1024 or time.time() - last > 2.0:
                last = time.time()
                self._post(body)
                body = ""
        self._post(body)

    def _post(self, body: str) -> None:
        parts = ["Action=SendMessage", f"MessageBody={body}"]
        attributes = (("key", APIKEY), ("secret", SECRET), ("sdk", "panoply-python-sdk-3.2.0"))
        for number, (name, value) in enumerate(attributes, 1):
            prefix = f"MessageAttribute.{number}"
            parts += [f"{prefix}.Name={name}", f"{prefix}.Value.DataType=String"]
            parts.append(f"{prefix}.Value.StringValue={value}")
        with urllib.request.urlopen(self._url, "&".join(parts).encode(), timeout=60) as answer:
            answer.read()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(60)


def with_sdk(url: str, records: list[dict[str, Any]]) -> None:
    sdk = Sdk(url)
    for record in records:
        sdk.write("flights", record)
    sdk.close()


class Quiet:
    """What the official v3io client logs to."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def with_put_records(url: str, records: list[dict[str, Any]], path: str, size: int) -> None:
    client = v3io.dataplane.Client(logger=Quiet(), endpoint=url, access_key="key", max_connections=8)
    client.stream.create("users", path, 8)
    batch = client.create_batch()
    for start in range(0, len(records), size * 16):
        for begin in range(start, min(start + size * 16, len(records)), size):
            part = [
                {"data": json.dumps(record), "shard_id": record["id"] % 8}
                for record in records[begin : begin + size]
            ]
            batch.stream.put_records("users", path, part)
        for answer in batch.wait():
            if answer.output.failed_record_count:
                raise RuntimeError("records were refused")
    client.close()


def with_kv_batches(url: str, records: list[dict[str, Any]], path: str) -> None:
    client = v3io.dataplane.Client(logger=Quiet(), endpoint=url, access_key="key", max_connections=16)
    batch = client.create_batch()
    for start in range(0, len(records), 16):
        for record in records[start : start + 16]:
            item = {name: value for name, value in record.items() if value is not None}
            batch.kv.put("users", path, str(record["id"]), item)
        batch.wait()
    client.close()


def with_requests(url: str, records: list[dict[str, Any]], stream: str) -> None:
    with requests.Session() as session:
        for start in range(0, len(records), 1000):
            events = []
            for number, record in enumerate(records[start : start + 1000], start):
                event = dict(record)
                event["@time"] = 17_952_220_000_000_000 + number
                event["@origin"] = f"bench/{stream}/1/{number}"
                events.append(event)
            body = json.dumps({"events": {stream: events}})
            session.post(f"{url}/1.0/events/put", body, timeout=60).raise_for_status()


def with_tables(folder: Path, records: list[dict[str, Any]], name: str) -> None:
    for start in range(0, len(records), BLOCK):
        table = pa.Table.from_pylist(records[start : start + BLOCK])
        with open(folder / f"{name}-{start}.parquet", "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


def with_lines(path: Path, records: list[dict[str, Any]]) -> None:
    with open(path, "a") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


# -- the measurement -------------------------------------------------------------------------------------------------


class Measures:
    """Rates and CPU by what was measured."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}
        self.costs: dict[str, list[float]] = {}

    def note(self, what: str, records: int, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.rates.setdefault(what, []).append(records / (time.perf_counter() - wall))
        self.costs.setdefault(what, []).append((time.process_time() - cpu) / records * 1e6)


def measure(rounds: int) -> Measures:
    measures = Measures()
    batches = [make_batch(number) for number in range(max(OURS.values()))]
    records = [record for batch in batches[: max(PEERS.values())] for record in batch.rows.to_pylist()]
    folder = Path(tempfile.mkdtemp(dir="."))

    def ours(what: str, sink: dict[str, Any]) -> None:
        chosen = batches[: OURS[what]]
        measures.note(f"{what}, tablecast", len(chosen) * BLOCK, lambda: asyncio.run(deliver(sink, chosen)))

    def peer(what: str, work: Callable[[list[dict[str, Any]]], object]) -> None:
        chosen = records[: PEERS[what] * BLOCK]
        measures.note(f"{what}, peer", len(chosen), lambda: work(chosen))

    try:
        with serving("sqs") as sqs, serving("v3io") as v3io_url, serving("kronos") as kronos:
            for n in range(rounds):
                stream = {"path": f"s{n}", "shards": 8, "key": None}
                keyed = {"path": f"k{n}", "key": ["id"]}
                ours("panoply", {"panoply": {"apikey": APIKEY, "apisecret": SECRET, "url": sqs}})
                peer("panoply", lambda chosen: with_sdk(sqs, chosen))
                ours("v3io", {"v3io": {"url": v3io_url, "container": "users", "stream": stream}})
                peer("v3io of 16", lambda chosen, n=n: with_put_records(v3io_url, chosen, f"p{n}", 16))
                peer("v3io of 1000", lambda chosen, n=n: with_put_records(v3io_url, chosen, f"q{n}", 1000))
                ours("v3io kv", {"v3io": {"url": v3io_url, "container": "users", "kv": keyed}})
                peer("v3io kv", lambda chosen, n=n: with_kv_batches(v3io_url, chosen, f"o{n}"))
                namespaced = {"url": kronos, "namespace": None}
                flights = [
                    Batch(b.id._replace(epoch=n + 1), b.count, b.time, b.rows, None, ()) for b in batches
                ]
                batches[:] = flights  # the store takes an origin only once
                ours("kronos", {"kronos": namespaced})
                peer("kronos", lambda chosen, n=n: with_requests(kronos, chosen, f"peer{n}"))
                ours("parquet", {"parquet": {"path": str(folder / f"lake{n}"), "linger": 0.2}})
                peer("parquet", lambda chosen, n=n: with_tables(folder, chosen, f"peer{n}"))
                ours("console", {"console": {"path": str(folder / f"lines{n}")}})
                peer("console", lambda chosen, n=n: with_lines(folder / f"peer{n}", chosen))
            with urllib.request.urlopen(sqs, timeout=60) as answer:
                arrived = int(answer.read())
            if arrived != rounds * BLOCK * (OURS["panoply"] + PEERS["panoply"]):
                raise RuntimeError(f"only {arrived} records came to the queue")
    finally:
        shutil.rmtree(folder)
    return measures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measures = measure(arguments.rounds)
    rates = {what: statistics.median(values) for what, values in measures.rates.items()}
    costs = {what: statistics.median(values) for what, values in measures.costs.items()}
    rows = [
        {"what": what, "per_second": rates[what], "cpu_us_per_record": costs[what]} for what in sorted(rates)
    ]
    names = {
        "panoply tablecast/sdk": ("panoply", "panoply"),
        "v3io tablecast/v3io": ("v3io", "v3io of 16"),
        "v3io tablecast/v3io of 1000": ("v3io", "v3io of 1000"),
        "v3io kv tablecast/v3io": ("v3io kv", "v3io kv"),
        "kronos tablecast/requests": ("kronos", "kronos"),
        "parquet tablecast/pyarrow": ("parquet", "parquet"),
        "console tablecast/json": ("console", "console"),
    }
    ratios = {key: rates[f"{us}, tablecast"] / rates[f"{them}, peer"] for key, (us, them) in names.items()}
    for key, (us, them) in names.items():
        sink, _, other = key.rpartition(" tablecast/")
        ratios[f"cpu {sink} {other}/tablecast"] = costs[f"{them}, peer"] / costs[f"{us}, tablecast"]
    report("writers", rows, ratios, arguments.json)


if __name__ == "__main__":
    main()
