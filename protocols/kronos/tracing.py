"""An event per call of a function or per run of a block: how long it took, and what it raised.

As PyKronos' ``log_function`` and ``log_scope``, field by field: ``duration`` in seconds, the caller's properties,
``stack_trace`` as a list of [file, line, function, text] where asked for, and ``exception`` as ``{"message", "class"}``
with a ``stack_trace`` of its own where asked for. Unlike these, what the block raises is raised again, and an event
that cannot be made or put is logged and takes nothing from the result.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from protocols.checks import check_callable, check_type

log = logging.getLogger(__name__)

Params = ParamSpec("Params")
Result = TypeVar("Result")
#: The properties of an event that has none.
NOTHING: Mapping[str, Any] = MappingProxyType({})

Putter = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Trace:
    """Which stack traces an event gets: where the function was called, and what led to an exception."""

    call: bool = False
    exception: bool = False


def log_function(
    put: Putter, properties: Mapping[str, Callable[Params, Any]], trace: Trace
) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """A decorator; each of `properties` is called with the function's own arguments, before it runs."""
    for name, getter in check_type("properties", properties, Mapping).items():
        check_callable(f"property {name}", getter)

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        @functools.wraps(function)
        def logged(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            event: dict[str, Any] = {}
            for name, getter in properties.items():
                try:
                    event[name] = getter(*args, **kwargs)
                except Exception:
                    log.exception("property %s of a logged function failed", name)
            with log_scope(put, event, trace):
                return function(*args, **kwargs)

        return logged

    return decorate


def log_scope(
    put: Putter, properties: Mapping[str, Any], trace: Trace
) -> AbstractContextManager[dict[str, Any]]:
    """A context that gives the event, to which the block may add, and puts it when the block ends."""
    return _scope(put, dict(check_type("properties", properties, Mapping)), trace)


@contextmanager
def _scope(put: Putter, event: dict[str, Any], trace: Trace) -> Iterator[dict[str, Any]]:
    if trace.call:
        stack = traceback.extract_stack()
        while stack[-1].filename in (__file__, contextlib.__file__):
            stack.pop()
        event["stack_trace"] = _frames(stack)
    begin = time.perf_counter()
    try:
        yield event
    except BaseException as error:
        event["exception"] = {"message": str(error), "class": _name(type(error))}
        if trace.exception:
            event["exception"]["stack_trace"] = _frames(traceback.extract_tb(error.__traceback__))
        raise
    finally:
        event["duration"] = time.perf_counter() - begin
        try:
            put(event)
        except Exception:
            log.exception("the event of a logged function or block is lost")


def _frames(frames: list[traceback.FrameSummary] | traceback.StackSummary) -> list[list[Any]]:
    return [[frame.filename, frame.lineno, frame.name, frame.line] for frame in frames]


def _name(kind: type[BaseException]) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
