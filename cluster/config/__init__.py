"""The pipeline file. :func:`load` reads one, ``pipeline.py`` has its top keys, modules named after parts the rest."""

from cluster.config.files import ConfigError, load, parse
from cluster.config.pipeline import PipelineConfig
from cluster.config.sinks import KronosSink, PanoplySink, Sink
from cluster.config.tables import Table, Transform

__all__ = [
    "ConfigError",
    "KronosSink",
    "PanoplySink",
    "PipelineConfig",
    "Sink",
    "Table",
    "Transform",
    "load",
    "parse",
]
