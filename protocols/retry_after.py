"""The header Retry-After (RFC 9110, 10.2.3): seconds, or a date."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, clock: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait by the header's `value`, at least 0; None if there is none, or none that can be read."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    # Without a zone it is GMT, as the format demands.
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - clock())
