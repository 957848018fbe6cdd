"""What Ray's control plane knows of actors."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import ray

from actors import logs
from actors.names import NAMESPACE


def actor_info(actor_id: str) -> dict[str, Any]:
    """What Ray knows of the actor with this hexadecimal id; empty for an actor never known.

    Among others ``State`` (``PENDING_CREATION``, ``ALIVE``, ``DEAD``, ...), ``Pid`` and ``Address``.
    """
    # Ray's public API for this needs its dashboard.
    found: dict[str, Any] = ray._private.state.actors(actor_id)
    return found


def logs_folder() -> Path:
    """Where Ray keeps the logs of this process's node."""
    # No public API tells. A process that is connected to a cluster on another host has a folder of that one's name.
    node = ray._private.worker._global_node
    return Path(node.get_session_dir_path()) / "logs"


def keep_logs(settings: Any) -> None:
    """Begin to log in this actor's process; whatever is secret in its `settings` stays out of it."""
    pipeline, _, actor = (ray.get_runtime_context().get_actor_name() or "/actor").partition("/")
    logs.set_up(logs_folder(), pipeline, actor, logs.secrets_in(settings))


def named_actors(prefix: str) -> dict[str, Any]:
    """Name -> handle of ours whose names begin so."""
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix):
            with contextlib.suppress(ValueError):  # it has ended in between
                found[actor["name"]] = ray.get_actor(actor["name"], NAMESPACE)
    return found
