"""The same callbacks on a cluster: a pipeline whose sink calls functions of this module.

    .venv/bin/python examples/callbacks_pipeline.py

It starts an embedded table server and a Ray of its own, runs the pipeline below, and ends by itself. With a pipeline
file of your own it is `tablecast run FILE`, or `tablecast submit FILE --module callbacks_pipeline.py`.
"""

import json
import os
import tempfile
import time
from pathlib import Path

from cluster import control
from cluster.config import parse
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType

TABLE = "ki_home.flights"
PATIENCE = 120.0

PIPELINE = """\
pipeline: callbacks
source: {kinetica: {url: "${URL}"}}
tables: [{name: ki_home.flights}]
sinks:
  mine:
    python:
      callbacks:
        insert_decoded: {call: "callbacks_pipeline:on_insert", error: "callbacks_pipeline:on_error"}
        insert_batch: callbacks_pipeline:on_batch
        deleted: callbacks_pipeline:on_delete
decoders: {min: 1, max: 1}
spool: {path: ./spool, min_free: 0}
"""


def note(text):
    """Called in the writer's process, so what it has to say goes into a file."""
    with open(os.environ["CALLBACKS_NOTES"], "a") as file:
        file.write(f"{text}\n")


def on_insert(
    row, origin
):  # with two parameters it gets the origin, which tells whether it has seen the row before
    note(f"inserted {row['id']} of {row['carrier']}, {origin.split('/')[-1]} in its epoch")
    if row["carrier"] is None:
        raise ValueError("a flight without carrier")  # makes it a dead letter


def on_batch(batch):
    note(f"a batch of {batch.num_rows} rows")


def on_delete(count):
    note(f"deleted {count}")


def on_error(text):
    note(f"error: {text}")


def main():
    with tempfile.TemporaryDirectory() as folder, embedded_server("kinetica", "--monitor-port", "0") as url:
        notes = Path(folder) / "notes"
        # What Ray's workers inherit: where this module is found, and where its notes go.
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        os.environ["CALLBACKS_NOTES"] = str(notes)
        with KineticaClient(url) as client:
            columns = TableType((Column("id", "long"), Column("carrier", "string", True)))
            client.create_table(TABLE, client.create_type(columns))
            control.connect(own=True)
            supervisor = control.start_pipeline(parse(PIPELINE, f"{folder}/pipeline.yaml", {"URL": url}))
            assert control.wait_ready(supervisor, PATIENCE), "the pipeline did not come up"
            rows = [json.dumps({"id": 1, "carrier": "UA"}), json.dumps({"id": 2, "carrier": None})]
            client.call("/insert/records", table_name=TABLE, list_encoding="json", list_str=rows)
            client.delete_records(TABLE, ["id = 1"])
            deadline = time.monotonic() + PATIENCE
            while not notes.exists() or len(notes.read_text().splitlines()) < 5:
                assert time.monotonic() < deadline, "the functions were not called"
                time.sleep(0.1)
            control.stop_pipeline("callbacks", PATIENCE)
            control.disconnect()
        print(notes.read_text(), end="")
    print("done")


if __name__ == "__main__":
    main()
