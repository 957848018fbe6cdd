"""Functions that are called when a table changes: all six kinds of the official client, and batches.

    .venv/bin/python examples/callbacks_direct.py

It starts an embedded table server, changes a table, and ends by itself.
"""

import json
import threading

from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from tablecast import Callback, TableMonitor

TABLE = "ki_home.flights"
PATIENCE = 30.0
happened = threading.Semaphore(0)


def say(what):
    """A callback that prints what it is called with."""

    def callback(value):
        print(f"{what}: {value}")
        happened.release()

    return callback


def on_batch(batch):
    print(f"insert_batch: {batch.num_rows} rows of {', '.join(batch.schema.names)}")
    happened.release()


def wait(times):
    """Wait until callbacks were called so many times."""
    for _ in range(times):
        assert happened.acquire(timeout=PATIENCE), "a callback was not called"


def main():
    with embedded_server("kinetica", "--monitor-port", "0") as url, KineticaClient(url) as client:
        columns = TableType((Column("id", "long"), Column("carrier", "string", True)))
        client.create_table(TABLE, client.create_type(columns))
        kinds = Callback.Type
        monitor = TableMonitor(
            url,  # or a gpudb.GPUdb
            TABLE,
            [
                Callback(kinds.INSERT_DECODED, say("insert_decoded"), say("error")),
                Callback(kinds.INSERT_RAW, say("insert_raw")),
                Callback(kinds.INSERT_BATCH, on_batch),
                Callback(kinds.UPDATED, say("updated")),
                Callback(kinds.DELETED, say("deleted")),
                Callback(kinds.TABLE_ALTERED, say("table_altered")),
                Callback(kinds.TABLE_DROPPED, say("table_dropped")),
            ],
        )
        with monitor:
            rows = [json.dumps({"id": 1, "carrier": "UA"}), json.dumps({"id": 2, "carrier": None})]
            client.call("/insert/records", table_name=TABLE, list_encoding="json", list_str=rows)
            wait(5)  # one batch, and two rows, each as received and decoded
            client.update_records(TABLE, ["id = 1"], [{"carrier": "AA"}])
            wait(1)
            client.delete_records(TABLE, ["id > 0"])
            wait(1)
            options = {"column_type": "string", "column_properties": "nullable"}
            client.alter_table(TABLE, "add_column", "origin", options=options)
            wait(1)
            client.clear_table(TABLE)
            wait(1)
    print("done")


if __name__ == "__main__":
    main()
