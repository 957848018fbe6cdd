"""The kinds of sources that a table can have, by name; each in a module of its own."""

from __future__ import annotations

from actors.monitor.pull import PullSource
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import SharedSource


def make_source(settings: MonitorSettings) -> SharedSource | PullSource:
    """The source of a table. Connects to nothing yet, and loads what only this kind of source needs."""
    match settings.kind:
        case "kinetica":
            from actors.monitor.kinetica import KineticaTable

            return KineticaTable(settings)
        case "datasource":
            from actors.monitor.datasource.table import DataSourceTable

            return DataSourceTable(settings)
        case "v3io_stream":
            from actors.monitor.v3io_stream import V3ioStreamTable

            return V3ioStreamTable(settings)
    raise ValueError(f"there is no source of kind {settings.kind}")
