"""Events by name."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from protocols.panoply.emitter import Emitter


def test_handlers_of_all_events_are_called_first_and_each_once() -> None:
    told: list[Any] = []
    emitter = Emitter()
    handler = told.append
    assert emitter.on("a", handler).on("a", handler) is emitter
    emitter.on("*", lambda name, data: told.append((name, data)))
    assert emitter.fire("a", 1) is emitter
    emitter.fire("b", 2).fire("*", 3)
    assert told == [("a", 1), 1, ("b", 2), ("*", 3)]


def test_a_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    Emitter().on("a", lambda data: 1 / 0).on("a", told.append).fire("a", 1)
    assert told == [1]
    assert "a handler of 'a' failed" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_emitters_share_nothing_and_need_no_init() -> None:
    class Source(Emitter):
        def __init__(self) -> None:
            pass

    told: list[Any] = []
    one, other = Source(), Source()
    one.on("a", told.append)
    other.fire("a", 1)
    assert (told, one.listens("a"), other.listens("a")) == ([], True, False)


@pytest.mark.parametrize(("name", "handler"), [(5, print), ("a", None)])
def test_misuse(name: Any, handler: Any) -> None:
    with pytest.raises(TypeError):
        Emitter().on(name, handler)
