"""``panoply.ssh`` of the SDK."""

from __future__ import annotations

from protocols.panoply.ssh import SSHTunnel

__all__ = ["SSHTunnel"]
