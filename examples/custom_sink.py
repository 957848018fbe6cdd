"""A sink of your own, a file of JSON lines per stream, in a pipeline: `.venv/bin/python examples/custom_sink.py`.

The pipeline names the class as ``custom_sink:Lines``, which has to be importable on every node. An installed package
can offer it under a short name instead, as an entry point of the group ``tablecast.sinks`` (docs/sinks.md).
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fastavro

from actors.batch import Batch
from actors.writer.encode import encode_batch
from actors.writer.sinks import Payload


class Lines:
    """Appends events as lines to ``<folder>/<stream>.ndjson``."""

    takes_puts = True

    def __init__(self, pipeline: str, folder: str, at_most: int = 1000) -> None:
        self._pipeline = pipeline
        self._folder = Path(folder)
        self._at_most = at_most

    def payloads(self, batch: Batch) -> Iterator[Payload]:
        events = encode_batch(self._pipeline, batch)
        for start in range(0, batch.rows.num_rows, self._at_most):
            stop = min(start + self._at_most, batch.rows.num_rows)
            yield Payload((batch.stream, events.lines(start, stop)), stop - start)

    def send(self, payload: Payload) -> None:
        """Make it durable. An error with ``retryable = True``, or a ConnectionError, would be tried again."""
        stream, body = payload.body
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / f"{stream}.ndjson", "ab") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        pass


def main() -> None:
    from cluster import control
    from cluster.config import PipelineConfig
    from cluster.servers import embedded_server
    from protocols.kinetica.client import KineticaClient
    from protocols.kinetica.types import Column, TableType

    row = TableType((Column("n", "int"), Column("word", "string")))
    schema = fastavro.parse_schema(row.avro)
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server("kinetica", "--monitor-port", "0") as url,
        KineticaClient(url) as kinetica,
    ):
        kinetica.create_table("words", kinetica.create_type(row))
        sink = {"custom": {"class": "custom_sink:Lines", "options": {"folder": f"{folder}/lines"}}}
        config = PipelineConfig.model_validate(
            {
                "pipeline": "example",
                "source": {"kinetica": {"url": url}},
                "tables": [{"name": "words"}],
                "sinks": {"lines": sink},
                "spool": {"path": f"{folder}/spool", "min_free": 0},
            }
        )
        # So that the writer's process finds this module; on a cluster: install it, or set PYTHONPATH on every node.
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        control.connect(own=True)  # a Ray of this process
        try:
            print("starting the pipeline")
            assert control.wait_ready(control.start_pipeline(config), 60), "the pipeline did not come up"
            frames = []
            for n in range(1000):
                frame = io.BytesIO()
                fastavro.schemaless_writer(frame, schema, {"n": n, "word": f"word {n}"})
                frames.append(frame.getvalue())
            kinetica.insert_records("words", frames)
            print("inserted 1,000 rows")
            control.stop_pipeline("example", 30)  # drains
        finally:
            control.disconnect()
        (file,) = Path(folder, "lines").iterdir()
        lines = file.read_text().splitlines()
        print(f"{file.name} has {len(lines):,} lines; the first:", lines[0])


if __name__ == "__main__":
    main()
