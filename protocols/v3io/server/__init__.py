"""A server that speaks V3IO's data-plane web API, embedded in a process."""

from __future__ import annotations

from protocols.v3io.server.server import V3ioServer

__all__ = ["V3ioServer"]
