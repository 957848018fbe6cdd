"""``v3io.dataplane`` of the official package: ``Client``, ``RaiseForStatus`` and ``response.HttpResponseError``."""

from __future__ import annotations

from protocols.v3io.official import response
from protocols.v3io.official.client import Client
from protocols.v3io.official.response import RaiseForStatus

__all__ = ["Client", "RaiseForStatus", "response"]
