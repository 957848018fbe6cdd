"""Events put to a pipeline's sink from Ray tasks: `.venv/bin/python examples/write_from_task.py`.

Starts an event store and a pipeline to put to; where one is running already only the task is needed.
"""

from __future__ import annotations

import tempfile

import tablecast
from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kinetica.types import Column, TableType
from tablecast.kronos import MAX_TIME, KronosClient

with (
    tempfile.TemporaryDirectory() as folder,
    embedded_server("kinetica", "--monitor-port", "0") as kinetica,
    embedded_server("kronos", "--data-dir", f"{folder}/events") as kronos,
):
    with KineticaClient(kinetica) as tables:
        tables.create_table("numbers", tables.create_type(TableType((Column("n", "int"),))))
    config = PipelineConfig.model_validate(
        {
            "pipeline": "example",
            "source": {"kinetica": {"url": kinetica}},
            "tables": [{"name": "numbers"}],
            "sinks": {"events": {"kronos": {"url": kronos}}},
            "spool": {"path": f"{folder}/spool", "min_free": 0},
        }
    )
    control.connect(own=True)  # a Ray of this process; before Ray is imported
    import ray

    @ray.remote(num_cpus=0.1)
    def square(numbers: range) -> int:
        """Put an event per number; they are durable at the sink when the task returns."""
        with tablecast.writer("example", "events") as writer:
            for n in numbers:
                writer.put({"squares": [{"n": n, "square": n * n}]}, timeout=30)
            writer.flush()
        return len(numbers)

    try:
        print("starting the pipeline")
        assert control.wait_ready(control.start_pipeline(config), 60), "the pipeline did not come up"
        counts = ray.get([square.remote(range(start, start + 500)) for start in (0, 500)])
        print("the tasks put", sum(counts), "events")
        with KronosClient(kronos) as client:
            events = list(client.get("squares", 0, MAX_TIME))
        print("the store has", len(events), "events, for instance", events[0])
    finally:
        if "example" in control.pipelines():
            control.stop_pipeline("example", 10)
        control.disconnect()
