"""Interfaces that users of other packages know, under their names: change the import line and go on."""

from __future__ import annotations

from actors.callbacks.official import GPUdbTableMonitor

__all__ = ["GPUdbTableMonitor"]
