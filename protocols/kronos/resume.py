"""A get that goes on after the last event when its reply breaks off, so that none is missing or given twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from protocols.backoff import Backoff
from protocols.kronos import wire
from protocols.kronos.errors import BadReply, ConnectionFailed, TransientError

#: Before a get is repeated.
_BACKOFF = Backoff(initial=0.1, cap=5.0)
#: Most seconds that a server's Retry-After can make a get wait.
_LONGEST_RETRY_AFTER = 60.0


def events(
    lines: Callable[[bytes], Iterator[bytes]], request: dict[str, Any], limit: int, max_retries: int
) -> Iterator[dict[str, Any]]:
    """The events of `request`, a get with all but its limit; `lines` sends a request and gives the reply's lines."""
    left = limit
    # Events already given that a resumed descending get, which can name no upper id, will send again.
    given: set[str] = set()
    failures = 0
    while left > 0:
        known = given if request["order"] == wire.ResultOrder.DESCENDING else set()
        request["limit"] = min(left + len(known), wire.NO_LIMIT)
        try:
            for line in lines(orjson.dumps(request)):
                event = _event(line)
                event_id, event_time = event[wire.ID_FIELD], event[wire.TIMESTAMP_FIELD]
                if event_id in known:
                    continue
                failures = 0
                left -= 1
                if request["order"] == wire.ResultOrder.ASCENDING:
                    request.pop("start_time", None)
                    request["start_id"] = event_id
                elif request["end_time"] == event_time:
                    given.add(event_id)
                else:
                    request["end_time"] = event_time
                    given = {event_id}
                yield event
            return
        except TransientError as error:
            failures += 1
            if failures > max_retries:
                raise
            time.sleep(max(_BACKOFF.delay(failures), min(error.retry_after or 0, _LONGEST_RETRY_AFTER)))


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(line)
    except ValueError:
        # Half a line: a server that does not frame its reply broke off.
        raise ConnectionFailed(f"{wire.GET}: the reply broke off within an event") from None
    if not isinstance(event, dict) or not event.keys() >= {wire.ID_FIELD, wire.TIMESTAMP_FIELD}:
        raise BadReply(f"{wire.GET}: an event without @id and @time: {line!r:.200}")
    return event
