"""Where data goes: one file per sink behind the protocol in ``base.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.writer.sinks.base import Payload, Sink
from actors.writer.sinks.kronos import KronosSink

__all__ = ["SINKS", "Payload", "Sink", "make_sink"]

#: Kind in the pipeline file -> class, called with the pipeline's name and the settings given there.
SINKS: Mapping[str, Callable[..., Sink]] = {"kronos": KronosSink}


def make_sink(pipeline: str, settings: Mapping[str, Any]) -> Sink:
    """Make the sink of ``{kind: {setting: value}}``."""
    ((kind, values),) = settings.items()
    return SINKS[kind](pipeline, **values)
