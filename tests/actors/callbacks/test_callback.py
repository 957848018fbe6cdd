"""Callbacks and options: every misuse is told at the call, and official code catches it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gpudb
import pytest

from actors.callbacks.callback import Callback
from actors.callbacks.errors import MonitorError
from actors.callbacks.options import Options

Kinds = Callback.Type
Decoded = Callback.InsertDecodedOptions


async def nobody_awaits(value: object) -> None: ...


def nobody_iterates(value: object) -> Iterator[object]:
    yield value


class Awaitable:
    async def __call__(self, value: object) -> None: ...


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Callback(1, print), "callback_type is a int; give a member of Callback.Type"),
        (lambda: Callback("INSERT_RAW", print), "callback_type is a str"),
        (lambda: Callback(Kinds.DELETED, "print"), "event_callback is a str; give a function"),
        (lambda: Callback(Kinds.DELETED, print, 3), "error_callback is a int; give a function"),
        (lambda: Callback(Kinds.DELETED, lambda: None), "event_callback does not take one argument"),
        (lambda: Callback(Kinds.DELETED, lambda a, b: None), "event_callback does not take one argument"),
        (lambda: Callback(Kinds.DELETED, nobody_awaits), "event_callback is a coroutine function"),
        (lambda: Callback(Kinds.DELETED, Awaitable()), "event_callback is a coroutine function"),
        (lambda: Callback(Kinds.DELETED, partial(nobody_iterates)), "event_callback has a yield"),
        (lambda: Callback(Kinds.DELETED, print, nobody_iterates), "error_callback has a yield"),
        (lambda: Callback(Kinds.DELETED, print, None, {}), "event_options is a dict"),
        (lambda: Decoded("SKIP"), "decode_failure_mode is a str; give DecodeFailureMode.SKIP or ABORT"),
        (lambda: setattr(Decoded(), "decode_failure_mode", 2), "decode_failure_mode is a int"),
        (lambda: Options([("max_retries", 1)]), "options are given as a dict, not as a list"),
        (lambda: Options({"max_retry": 1}), "unknown options: max_retry; there are inactivity_timeout, max_"),
        (lambda: Options({"inactivity_timeout": "soon"}), "inactivity_timeout is not a number of minutes"),
        (
            lambda: Options({"inactivity_timeout": 0}),
            "inactivity_timeout is 0; give a number of minutes above",
        ),
        (lambda: Options({"inactivity_timeout": 10**400}), "inactivity_timeout is not a number of minutes"),
        (lambda: setattr(Options(), "inactivty_timeout", 5), "unknown options: inactivty_timeout; there are"),
        (lambda: Options({"inactivity_timeout": float("nan")}), "inactivity_timeout is nan"),
        (lambda: Options({"max_retries": -1}), "max_retries is -1; give a whole number"),
        (lambda: Options({"wait_interval": 0.5}), "wait_interval is 0.5; give a whole number"),
        (lambda: Options({"wait_interval": True}), "wait_interval is True"),
        (lambda: Options({"monitor_port": "9002"}), "monitor_port is '9002'"),
        (lambda: Options({"monitor_port": 0}), "monitor_port is 0; give a port from 1 to 65535"),
    ],
)
def test_misuse_is_told_at_the_call(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonitorError, match="^" + message.replace("(", r"\(")) as caught:
        make()
    assert isinstance(caught.value, gpudb.GPUdbException)  # what official code catches
    assert caught.value.message == str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, MonitorError)
    assert str(copy) == str(caught.value)


def test_defaults_and_settings() -> None:
    callback = Callback(Kinds.INSERT_DECODED, print)
    assert (callback.error_callback, callback.event_options, callback.aborts) == (None, None, False)
    modes = Decoded.DecodeFailureMode
    options = Decoded()
    assert options.decode_failure_mode is modes.SKIP
    options.decode_failure_mode = modes.ABORT
    assert Callback(Kinds.INSERT_DECODED, print, print, options).aborts
    assert Options().as_dict() == {
        "inactivity_timeout": 20 * 60 * 1000,
        "max_retries": 5,
        "wait_interval": 1,
        "monitor_port": 9002,
    }
    assert Options().given_port is None
    given = Options({"inactivity_timeout": 0.1, "monitor_port": 19002})
    assert (given.inactivity_timeout, given.given_port) == (6000, 19002)


def test_a_builtin_and_a_method_are_callbacks() -> None:
    seen: list[object] = []
    for function in (seen.append, print, set, type("C", (), {"__call__": lambda self, value: None})()):
        Callback(Kinds.UPDATED, function)
