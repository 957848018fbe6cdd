"""What Ray's control plane knows of an actor."""

from __future__ import annotations

from typing import Any

import ray


def actor_info(actor_id: str) -> dict[str, Any]:
    """What Ray knows of the actor with this hexadecimal id; empty for an actor never known.

    Among others ``State`` (``PENDING_CREATION``, ``ALIVE``, ``DEAD``, ...), ``Pid`` and ``Address``.
    """
    # Ray's public API for this needs its dashboard.
    found: dict[str, Any] = ray._private.state.actors(actor_id)
    return found
