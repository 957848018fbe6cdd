"""Sinks of users' own: a class that a pipeline file names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from actors.writer.sinks.base import Sink

#: Entry point group in which a package can offer a sink under a short name.
GROUP = "tablecast.sinks"


class NoSuchSink(ValueError):
    """A custom sink's class cannot be used; the message says why and what to do."""


def load_named(name: str) -> Any:
    """What ``module:name`` is. Raises ``ImportError``, ``AttributeError``, or whatever the module raises."""
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def load_sink(name: str) -> type[Sink]:
    """The class ``module:Class``, or that of the entry point `name`. Raises :class:`NoSuchSink`."""
    try:
        if ":" in name:
            found = load_named(name)
        else:
            points = entry_points(group=GROUP)
            if name not in points.names:
                known = ", ".join(sorted(points.names)) or "none is installed"
                raise NoSuchSink(f"{name} is neither module:Class nor an entry point of {GROUP} ({known})")
            found = points[name].load()
    except (ImportError, AttributeError, ValueError) as error:
        if isinstance(error, NoSuchSink):
            raise
        raise NoSuchSink(
            f"{name} cannot be loaded: {error}; is its module installed, or on PYTHONPATH?"
        ) from error
    missing = [
        method for method in ("payloads", "send", "close") if not callable(getattr(found, method, None))
    ]
    if not isinstance(found, type) or missing:
        what = f"has no {', '.join(missing)}" if isinstance(found, type) else "is no class"
        raise NoSuchSink(f"{name} {what}; see docs/sinks.md for what a sink is")
    return found


def check_options(name: str, pipeline: str, options: Mapping[str, Any]) -> None:
    """Load the class and see whether it takes these options, without making it. Raises :class:`NoSuchSink`."""
    try:
        inspect.signature(load_sink(name)).bind(pipeline, **options)
    except TypeError as error:
        raise NoSuchSink(f"{name} does not take these options: {error}") from None


def make_custom(pipeline: str, settings: Mapping[str, Any]) -> Sink:
    """Make the sink of the settings of a pipeline file; `hold_bytes` is added by the plan, for rolling sinks."""
    sink: Any = load_sink(settings["class"])
    made: Sink = sink(pipeline, **settings["options"])
    if hasattr(made, "hold_bytes"):
        made.hold_bytes = min(made.hold_bytes, settings["hold_bytes"])
    return made
