"""What Ray's control plane knows of actors."""

from __future__ import annotations

import contextlib
from typing import Any

import ray

from actors.names import NAMESPACE


def actor_info(actor_id: str) -> dict[str, Any]:
    """What Ray knows of the actor with this hexadecimal id; empty for an actor never known.

    Among others ``State`` (``PENDING_CREATION``, ``ALIVE``, ``DEAD``, ...), ``Pid`` and ``Address``.
    """
    # Ray's public API for this needs its dashboard.
    found: dict[str, Any] = ray._private.state.actors(actor_id)
    return found


def named_actors(prefix: str) -> dict[str, Any]:
    """Name -> handle of ours whose names begin so."""
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix):
            with contextlib.suppress(ValueError):  # it has ended in between
                found[actor["name"]] = ray.get_actor(actor["name"], NAMESPACE)
    return found
