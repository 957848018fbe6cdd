"""Callbacks that put rows into a bounded queue, from which a thread of yours takes them.

    .venv/bin/python examples/callbacks_queue.py

While the queue is full the callback waits; rows that come meanwhile wait in the socket. It starts an embedded table
server, inserts rows, and ends by itself.
"""

import json
import queue
import threading

from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from tablecast import Callback, TableMonitor

TABLE = "ki_home.readings"
ROWS = 1000
PATIENCE = 30.0


def work(rows, sums):
    """Take rows until there is None."""
    while (row := rows.get(timeout=PATIENCE)) is not None:
        sums[row["sensor"]] = sums.get(row["sensor"], 0) + row["value"]


def main():
    rows, sums = queue.Queue(maxsize=100), {}
    worker = threading.Thread(target=work, args=(rows, sums))
    worker.start()
    with embedded_server("kinetica", "--monitor-port", "0") as url, KineticaClient(url) as client:
        columns = TableType((Column("sensor", "string"), Column("value", "int")))
        client.create_table(TABLE, client.create_type(columns))
        complete = threading.Semaphore(0)

        def on_insert(row):
            rows.put(row, timeout=PATIENCE)
            complete.release()

        with TableMonitor(url, TABLE, [Callback(Callback.Type.INSERT_DECODED, on_insert, print)]):
            texts = [json.dumps({"sensor": f"s{number % 3}", "value": number}) for number in range(ROWS)]
            client.call("/insert/records", table_name=TABLE, list_encoding="json", list_str=texts)
            for _ in range(ROWS):
                assert complete.acquire(timeout=PATIENCE), "a row did not come"
    rows.put(None)
    worker.join()
    for sensor, total in sorted(sums.items()):
        print(f"{sensor}: {total}")
    print("done")


if __name__ == "__main__":
    main()
