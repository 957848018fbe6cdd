"""What becomes of the errors of Ray on the way to a writer."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, OwnerDiedError, RayTaskError

from actors.errors import DeliveryRefused, NotAttached
from actors.writer.client import RayTransport
from actors.writer.puts import WriterAway


class Handle:
    """A writer whose every call is answered by what `ray.get` raises."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *arguments: Any) -> Handle:
        return self


def attach(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_actor", lambda *_: Handle())
    monkeypatch.setattr(ray, "wait", lambda answers, timeout: (answers, []))
    monkeypatch.setattr(ray, "get", get)
    RayTransport("p", "s").attach("put:a", (1, 1))


def task_error(cause: Exception) -> Exception:
    error: Exception = RayTaskError("attach", "Traceback\nof many\nlines", cause).as_instanceof_cause()
    return error


def test_what_the_writer_raised_comes_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryRefused) as caught:
        attach(monkeypatch, task_error(DeliveryRefused("takes tables only")))
    assert str(caught.value) == "takes tables only"
    assert not isinstance(caught.value, RayTaskError)


@pytest.mark.parametrize(
    "error",
    [
        OwnerDiedError("00" * 28, b"", ""),
        ActorUnavailableError("away", b"0" * 16),
        task_error(NotAttached("t is not attached")),
    ],
    ids=["owner", "unavailable", "restarted"],
)
def test_a_writer_that_cannot_be_reached_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(WriterAway):
        attach(monkeypatch, error)
