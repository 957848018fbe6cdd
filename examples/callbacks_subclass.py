"""A class that derives from the official client's name: only the import line is new.

    .venv/bin/python examples/callbacks_subclass.py

It starts an embedded table server, inserts two rows, and ends by itself.
"""

import json
import threading

from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from tablecast.compat import GPUdbTableMonitor  # was: from gpudb import GPUdbTableMonitor

TABLE = "ki_home.orders"
PATIENCE = 30.0


class Orders(GPUdbTableMonitor.Client):
    """Adds up the orders of a table."""

    def __init__(self, db, table_name):
        self.total = 0
        self.complete = threading.Event()
        kinds = GPUdbTableMonitor.Callback.Type
        skip = GPUdbTableMonitor.Callback.InsertDecodedOptions(
            GPUdbTableMonitor.Callback.InsertDecodedOptions.DecodeFailureMode.SKIP
        )
        super().__init__(
            db,
            table_name,
            [
                GPUdbTableMonitor.Callback(kinds.INSERT_DECODED, self.on_insert, self.on_error, skip),
                GPUdbTableMonitor.Callback(kinds.TABLE_DROPPED, self.on_dropped, self.on_error),
            ],
            GPUdbTableMonitor.Options(_dict={"inactivity_timeout": 0.1}),
        )

    def on_insert(self, row):
        self.total += row["amount"]
        print(f"order {row['id']} of {row['amount']}, together {self.total}")
        if row["id"] == 3:
            raise ValueError("no order 3, please")
        if row["id"] == 4:
            self.complete.set()

    def on_dropped(self, text):
        print(f"dropped: {text}")

    def on_error(self, text):
        print(f"error: {text}")


def main():
    with embedded_server("kinetica", "--monitor-port", "0") as url, KineticaClient(url) as client:
        columns = TableType((Column("id", "long"), Column("amount", "int")))
        client.create_table(TABLE, client.create_type(columns))
        with Orders(url, TABLE) as orders:  # start_monitor(), and stop_monitor() at the end
            rows = [json.dumps({"id": number, "amount": 10 * number}) for number in range(1, 5)]
            client.call("/insert/records", table_name=TABLE, list_encoding="json", list_str=rows)
            assert orders.complete.wait(PATIENCE), "the rows did not come"
            client.clear_table(TABLE)
            assert orders.wait(PATIENCE), "that the table is gone was not noticed"
    print("done")


if __name__ == "__main__":
    main()
