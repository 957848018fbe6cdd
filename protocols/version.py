"""What the clients say of themselves."""

from __future__ import annotations

from importlib import metadata

try:
    VERSION = metadata.version("tablecast")
except metadata.PackageNotFoundError:  # not installed: run from its source
    VERSION = "0"

#: As PyKronos says who put an event, in its ``@library``.
LIBRARY = {"name": "tablecast", "version": VERSION}
