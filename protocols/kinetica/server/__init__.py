"""An embedded table server that the official Kinetica clients can use unchanged."""

from protocols.kinetica.server.server import TableServer

__all__ = ["TableServer"]
