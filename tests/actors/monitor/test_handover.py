"""Rows that were handed over are appended once, or not at all."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from actors.monitor import handover
from actors.monitor.handover import Handover, Recovered

DESCRIBED: Any = None


def recovered() -> Recovered:
    return Recovered([b"row"], DESCRIBED, lambda db: None)


def test_what_nobody_took_in_time_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.01)
    meeting = Handover()
    meeting.open(lambda: None)
    with pytest.raises(TimeoutError):
        meeting.give(recovered())
    assert meeting.take() is None


def test_what_was_taken_at_the_last_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Handover()
    meeting.open(lambda: None)
    given = recovered()
    waits = given.done.result

    def late(timeout: float | None = None) -> Any:
        monkeypatch.setattr(given.done, "result", waits)
        assert meeting.take() is given
        threading.Thread(target=lambda: given.done.set_result([])).start()
        raise TimeoutError

    monkeypatch.setattr(given.done, "result", late)
    assert meeting.give(given) == []
