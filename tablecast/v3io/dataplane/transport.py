"""``v3io.dataplane.transport`` of the official package, as far as callers need it."""

from __future__ import annotations

from protocols.v3io.official.response import RaiseForStatus

__all__ = ["RaiseForStatus"]
