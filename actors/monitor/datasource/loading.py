"""Finds a user's data source: a module with a class ``Stream``, and perhaps a ``CONFIG``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from protocols.panoply.datasource import DataSource


class NoSuchDataSource(ValueError):
    """A data source's module cannot be used; the message says why and what to do."""


class Loaded(NamedTuple):
    """The class of a data source, and what its module says of it."""

    stream: type[DataSource]
    config: Mapping[str, Any]


def load(module: str) -> Loaded:
    """The data source of `module`. Raises :class:`NoSuchDataSource`."""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a user's module raises
        what = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise NoSuchDataSource(
            f"module {module} cannot be imported: {what}; is it installed, or on PYTHONPATH?"
        ) from error
    stream, config = getattr(found, "Stream", None), getattr(found, "CONFIG", {})
    if not (isinstance(stream, type) and issubclass(stream, DataSource)):
        what = "has no class Stream" if stream is None else "has a Stream that is no data source"
        raise NoSuchDataSource(
            f"module {module} {what}; let it be Stream, derived from tablecast.panoply.DataSource"
        )
    if missing := sorted(getattr(stream, "__abstractmethods__", ())):
        raise NoSuchDataSource(f"Stream of module {module} has no {', '.join(missing)}; define it")
    if not isinstance(config, Mapping):
        raise NoSuchDataSource(f"CONFIG of module {module} is a {type(config).__name__}; make it a dict")
    return Loaded(stream, config)


def missing_params(config: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """A line for each parameter that a ``CONFIG`` lists and `params` has not: its name, title and help.

    One with ``"required": False`` may be missing. Raises :class:`NoSuchDataSource` for a list that is none.
    """
    entries = config.get("params") or []  # some have an empty dict there
    if not isinstance(entries, list):
        raise NoSuchDataSource('CONFIG["params"] must be a list of dicts')
    lines = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise NoSuchDataSource('an entry of CONFIG["params"] has no "name"; each must be a dict with one')
        name = entry["name"]
        if name in params or entry.get("required") is False:
            continue
        told = [str(entry[key]) for key in ("title", "help", "placeholder") if entry.get(key)]
        lines.append(f"{name} ({'; '.join(told)})" if told else name)
    return lines
