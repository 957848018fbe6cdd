"""Finds a running pipeline's sink for whoever wants to put events to it."""

from __future__ import annotations

import sys

from actors.errors import DeliveryRefused
from actors.names import NAMESPACE, writer_name
from actors.writer.puts import EventWriter, WriterAway
from cluster import control
from cluster.errors import NoSuchPart
from protocols.accumulator import Limits


def writer(
    pipeline: str, sink: str, *, address: str | None = None, limits: Limits | None = None
) -> EventWriter:
    """A writer of events to `sink` of the running `pipeline`, for any task, actor or driver.

    Connects this process to the cluster at `address` (default: ``RAY_ADDRESS``, else the local one) unless it is on one
    already. Raises :class:`NoCluster`, :class:`NoSuchPipeline`, and :class:`NoSuchPart` for a sink that the pipeline
    does not have or that takes tables only.
    """
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        control.connect(address)  # before Ray is imported, for the sake of its environment
    import ray

    from actors.writer.client import RayTransport

    try:
        ray.get_actor(writer_name(pipeline, sink), NAMESPACE)
    except ValueError:  # no such thing, or it is being restarted
        status = control.ask(control.find(pipeline), "status")
        names = [each["name"] for each in status["sinks"]]
        if sink not in names:
            raise NoSuchPart(f"pipeline {pipeline} has no sink {sink}; it has: {', '.join(names)}") from None
    made = EventWriter(f"{pipeline}/{sink}", RayTransport(pipeline, sink), limits)
    try:
        made.attach()
    except DeliveryRefused as error:
        made.close(0.0)
        raise NoSuchPart(f"{pipeline}/{sink}: {error}") from error
    except WriterAway:
        pass  # it will be back; what is put meanwhile waits
    return made
