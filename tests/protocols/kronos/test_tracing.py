"""Events of functions and blocks, as PyKronos makes them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from protocols.kronos.client import KronosClient


class Recorder(KronosClient):
    """A client whose puts stay here."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.events: list[Any] = []

    def put(self, event_dict: Any, namespace: str | None = None, **options: Any) -> None:
        self.events.append((event_dict, namespace))

    @property
    def event(self) -> dict[str, Any]:
        (((_, [event]),),) = [tuple(events.items()) for events, _ in self.events]
        assert isinstance(event, dict)
        return event


def test_a_function_is_logged() -> None:
    client = Recorder()

    @client.log_function("calls", {"x": lambda a, b=2: a + b}, namespace="other")
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert add(1) == 3
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    ((events, namespace),) = client.events
    assert (list(events), namespace) == (["calls"], "other")
    assert client.event == {"x": 3, "duration": client.event["duration"]}
    assert 0 <= client.event["duration"] < 10


def test_what_it_raises_is_logged_and_raised_again() -> None:
    client = Recorder()

    @client.log_function("calls", {}, True, True)
    def fail() -> None:
        raise ValueError("bad x")

    with pytest.raises(ValueError, match="bad x"):
        fail()
    exception = client.event["exception"]
    assert (exception["class"], exception["message"]) == ("ValueError", "bad x")
    assert exception["stack_trace"][-1][2:] == ["fail", 'raise ValueError("bad x")']
    assert client.event["stack_trace"][-1][2:] == [
        "test_what_it_raises_is_logged_and_raised_again",
        "fail()",
    ]


def test_a_block_is_logged_with_what_it_adds() -> None:
    client = Recorder()
    given = {"x": 1}
    with client.log_scope("blocks", given, log_function_stack_trace=True) as event:
        event["y"] = 2
    assert {"x": 1, "y": 2}.items() <= client.event.items()
    assert given == {"x": 1}
    assert client.event["stack_trace"][-1][2] == "test_a_block_is_logged_with_what_it_adds"


def test_an_exception_of_a_block_is_not_swallowed() -> None:
    client = Recorder()
    with pytest.raises(pytest.UsageError), client.log_scope("blocks"):
        raise pytest.UsageError("odd")
    assert client.event["exception"]["class"].endswith(".UsageError")


def test_an_event_that_cannot_be_put_takes_nothing_from_the_result(caplog: pytest.LogCaptureFixture) -> None:
    with KronosClient("http://127.0.0.1:1") as client, caplog.at_level(logging.CRITICAL):

        @client.log_function("calls", {"x": lambda: 1 / 0, "y": lambda: object()})
        def answer() -> int:
            return 42

        assert answer() == 42
