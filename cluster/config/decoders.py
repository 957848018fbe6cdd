"""The settings of the pool of decoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from cluster.config.types import Count, Cpus, Duration, Seconds, Section, Share
from cluster.config.yaml_source import KeyPath


class Scaling(Section):
    """When the pool grows and shrinks by itself between its bounds; `docs/scaling.md` explains it."""

    backlog_seconds: Seconds = Field(
        default=10.0,
        description="The pool grows when what waits would take it longer than this to decode, in seconds.",
    )
    busy_above: Share = Field(
        default=0.7,
        description="It grows only while its decoders are busy for more than this share of the time: else "
        "something else is the limit, such as a sink.",
    )
    idle_below: Share = Field(
        default=0.3, description="It shrinks when they are busy for less than this share of the time."
    )
    grow_after: Duration = Field(default=10.0, description="How long it has to be so before the pool grows.")
    shrink_after: Duration = Field(default=60.0, description="How long it has to be so before it shrinks.")
    cool_down: Duration = Field(
        default=15.0, description="How long nothing is judged after the pool has changed."
    )


class Decoders(Section):
    """Bounds of the pool of decode actors, and what each takes."""

    min: Count = Field(default=1, description="Decoders to start with, and never fewer.")
    max: Count = Field(
        default=4, description="Never more decoders than this; the same as min, and the pool keeps its size."
    )
    cpus: Cpus = Field(
        default=0.25,
        description="CPUs that Ray reserves for each; an autoscaler adds nodes for those that find none. A fraction "
        "shares cores among decoders; a whole number is also how many threads each may use.",
    )
    scaling: Scaling = Field(default=Scaling(), description="When the pool grows and shrinks by itself.")


def decoders_contradictions(decoders: Any) -> Iterator[tuple[KeyPath, str]]:
    """What no single value of the section `decoders` shows to be wrong."""
    scaling = decoders.get("scaling") if isinstance(decoders, dict) else None
    if not isinstance(scaling, dict):
        return
    idle, busy = (scaling.get(key, Scaling.model_fields[key].default) for key in ("idle_below", "busy_above"))
    if isinstance(idle, float) and isinstance(busy, float) and 0 < busy < 1 and idle > busy / 2:
        yield (
            ("decoders", "scaling", "idle_below"),
            f"more than half of busy_above, which is {busy:g}: a pool that has doubled would shrink at once; lower it",
        )
