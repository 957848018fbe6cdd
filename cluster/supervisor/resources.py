"""What an actor waits for that was created and has no process yet."""

from __future__ import annotations

from typing import Any

import ray

from actors.ray_state import actor_info


def has_no_process(handle: Any) -> bool:
    """Whether an actor has no process yet."""
    return actor_info(handle._actor_id.hex()).get("State") in ("DEPENDENCIES_UNREADY", "PENDING_CREATION")


def lacking_cpus(cpus: float, host: str | None, node: str | None) -> str | None:
    """What an actor lacks that needs `cpus`, on the `node` of `host` or, where that is None, on any; None: nothing."""
    if host is not None and node is None:
        return f"host {host} does not answer"
    if _free_cpus(node) >= cpus:
        return None
    where = "" if host is None else f" on host {host}"
    return f"waiting for {cpus} CPUs{where}; add some, or end something"


def _free_cpus(node: str | None) -> float:
    """The CPUs that a node has free; None: the most that one has."""
    nodes = ray._private.state.available_resources_per_node()  # Ray's public API has only their sum
    free = {id: float(resources.get("CPU", 0.0)) for id, resources in nodes.items()}
    return max(free.values(), default=0.0) if node is None else free.get(node, 0.0)
