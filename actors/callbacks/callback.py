"""A callback of a table monitor: for which events it is, what it is called with, and what becomes of failures.

The names, numbers and defaults are those of ``gpudb.GPUdbTableMonitor`` 7.2.3; ``INSERT_BATCH`` is our own.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any

from actors.callbacks.errors import MonitorError


class CallbackOptions:
    """Base of the options of one type of callback."""


class InsertDecodedOptions(CallbackOptions):
    """Options of ``INSERT_DECODED`` and ``INSERT_BATCH``: `decode_failure_mode` is ``SKIP`` by default."""

    class DecodeFailureMode(enum.Enum):
        """What follows a record that does not decode. Its reason goes to the error callback either way."""

        ABORT = 1  #: the monitor ends; the records before it are delivered
        SKIP = 2  #: the monitor goes on with the next record

    def __init__(self, decode_failure_mode: DecodeFailureMode | None = None) -> None:
        modes = InsertDecodedOptions.DecodeFailureMode
        self.decode_failure_mode = modes.SKIP if decode_failure_mode is None else decode_failure_mode

    @property
    def decode_failure_mode(self) -> DecodeFailureMode:
        return self._mode

    @decode_failure_mode.setter
    def decode_failure_mode(self, value: DecodeFailureMode) -> None:
        if not isinstance(value, InsertDecodedOptions.DecodeFailureMode):
            raise MonitorError(
                f"decode_failure_mode is a {_kind(value)}; give DecodeFailureMode.SKIP or ABORT"
            )
        self._mode = value


class CallbackType(enum.Enum):
    """Which events a callback is for, and what it is called with."""

    INSERT_DECODED = 1  #: dict: an inserted row, column -> value
    INSERT_RAW = 2  #: bytes: an inserted row as it was received, bare Avro of the table's type
    DELETED = 3  #: int: how many rows an operation deleted
    UPDATED = 4  #: int: how many rows an operation updated
    TABLE_ALTERED = 5  #: str: which columns were added and removed
    TABLE_DROPPED = 6  #: str: that the table is gone, after which the monitor ends
    INSERT_BATCH = 7  #: pyarrow.RecordBatch: inserted rows, some thousands at a time

    @staticmethod
    def event_types() -> list[CallbackType]:
        """All types."""
        return list(CallbackType)

    @staticmethod
    def monitor_types() -> list[CallbackType]:
        """The types that need a table monitor at the server; a client needs a callback of one of them."""
        return [each for each in CallbackType if each not in _OF_TABLE]


_OF_TABLE = (CallbackType.TABLE_ALTERED, CallbackType.TABLE_DROPPED)


class Callback:
    """What to call for one type of event.

    Args:
        callback_type: one of :class:`Callback.Type`, which says what `event_callback` is called with.
        event_callback: called with one argument; what it returns is ignored. None: nothing is called.
        error_callback: called with one line of text (str) when `event_callback` raised, when a record did not decode,
            and when the connection to the server was lost or is back.
        event_options: of ``INSERT_DECODED`` and ``INSERT_BATCH``, an :class:`InsertDecodedOptions`.

    Raises :class:`MonitorError` for arguments of the wrong type and for callables that do not take one argument, and
    for coroutine functions and generators, whose bodies nobody would run.
    """

    Type = CallbackType
    Options = CallbackOptions
    InsertDecodedOptions = InsertDecodedOptions

    def __init__(
        self,
        callback_type: CallbackType,
        event_callback: Callable[[Any], object] | None,
        error_callback: Callable[[str], object] | None = None,
        event_options: CallbackOptions | None = None,
    ) -> None:
        if not isinstance(callback_type, CallbackType):
            raise MonitorError(f"callback_type is a {_kind(callback_type)}; give a member of Callback.Type")
        check_callable("event_callback", event_callback)
        check_callable("error_callback", error_callback)
        if event_options is not None and not isinstance(event_options, CallbackOptions):
            raise MonitorError(
                f"event_options is a {_kind(event_options)}; give Callback.InsertDecodedOptions(...)"
            )
        self._type = callback_type
        self._event_callback = event_callback
        self._error_callback = error_callback
        self._event_options = event_options

    def __repr__(self) -> str:
        return f"Callback({self._type.name})"

    @property
    def callback_type(self) -> CallbackType:
        return self._type

    @property
    def event_callback(self) -> Callable[[Any], object] | None:
        return self._event_callback

    @property
    def error_callback(self) -> Callable[[str], object] | None:
        return self._error_callback

    @property
    def event_options(self) -> CallbackOptions | None:
        return self._event_options

    @property
    def aborts(self) -> bool:
        """Whether a record that does not decode ends the monitor."""
        options = self._event_options
        return (
            isinstance(options, InsertDecodedOptions)
            and options.decode_failure_mode is InsertDecodedOptions.DecodeFailureMode.ABORT
        )


def check_callable(name: str, given: object, arguments: int = 1) -> None:
    """Raise :class:`MonitorError` unless `given` is None or can be called with so many arguments."""
    if given is None:
        return
    if not callable(given):
        raise MonitorError(f"{name} is a {_kind(given)}; give a function or method")
    for function in (given, type(given).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise MonitorError(
                f"{name} is a coroutine function, which nobody would await; give a plain function"
            )
        if inspect.isgeneratorfunction(function):
            raise MonitorError(f"{name} has a yield, and its body would never run; give a plain function")
    try:
        inspect.signature(given).bind(*range(arguments))
    except TypeError as error:
        many = "one argument" if arguments == 1 else f"{arguments} arguments"
        raise MonitorError(f"{name} does not take {many}: {error}") from None
    except ValueError:
        pass  # a builtin that does not tell what it takes


def _kind(value: object) -> str:
    return type(value).__name__
