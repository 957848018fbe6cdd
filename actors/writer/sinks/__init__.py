"""Where data goes: one file per sink behind the protocol in ``base.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.writer.sinks.base import Payload, Sink
from actors.writer.sinks.console import ConsoleSink
from actors.writer.sinks.custom import make_custom
from actors.writer.sinks.kronos import KronosSink
from actors.writer.sinks.panoply import PanoplySink
from actors.writer.sinks.parquet_remote import parquet_sink
from actors.writer.sinks.python import PythonSink
from actors.writer.sinks.v3io import v3io_sink

__all__ = ["SINKS", "Payload", "Sink", "make_sink"]

#: Kind in the pipeline file -> what makes the sink, called with the pipeline's name and the settings given there.
SINKS: Mapping[str, Callable[..., Sink]] = {
    "console": ConsoleSink,
    "kronos": KronosSink,
    "panoply": PanoplySink,
    "parquet": parquet_sink,
    "python": PythonSink,
    "v3io": v3io_sink,
}


def make_sink(pipeline: str, settings: Mapping[str, Any]) -> Sink:
    """Make the sink of ``{kind: {setting: value}}``."""
    ((kind, values),) = settings.items()
    return make_custom(pipeline, values) if kind == "custom" else SINKS[kind](pipeline, **values)
