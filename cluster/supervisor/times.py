"""How long a supervisor may take for what people ask of it."""

from __future__ import annotations

#: Seconds allowed to an actor to answer a question.
ASK_TIMEOUT = 10.0

#: Seconds allowed to actors of one kind to end: a process of a hundred tables has each of them save what it has.
END_TIMEOUT = 20.0


def to_stop(drain_seconds: float) -> float:
    """Seconds that ending a pipeline takes at most."""
    return drain_seconds + ASK_TIMEOUT + END_TIMEOUT


def to_apply(drain_seconds: float) -> float:
    """Seconds that changing a pipeline takes at most: monitors, standbys, writers and decoders end in turn."""
    return drain_seconds + ASK_TIMEOUT + 4 * END_TIMEOUT
