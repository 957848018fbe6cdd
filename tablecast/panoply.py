"""Panoply's SDK under its names."""

from __future__ import annotations

from protocols.panoply.emitter import Emitter
from protocols.panoply.errors import MessageRefused, PanoplyError, TransientError, WriteFailed
from protocols.panoply.sdk import FLUSH_TIMEOUT, MAXSIZE, SDK, Answer, Request

__all__ = [
    "FLUSH_TIMEOUT",
    "MAXSIZE",
    "SDK",
    "Answer",
    "Emitter",
    "MessageRefused",
    "PanoplyError",
    "Request",
    "TransientError",
    "WriteFailed",
]
