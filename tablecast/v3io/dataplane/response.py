"""``v3io.dataplane.response`` of the official package."""

from __future__ import annotations

from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official.response import Response, Responses

__all__ = ["HttpResponseError", "Response", "Responses"]
