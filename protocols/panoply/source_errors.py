"""Errors of data sources: what they raise, and how any error is told in one form. The names are those of the SDK.

::

    Exception
    ├── PanoplyException            `retryable`: whether reading again may help
    │   └── TokenValidationException    the access token could not be refreshed
    ├── IncorrectParamError         a parameter cannot be used
    └── DataSourceException         any of these, with a code and where it came from: see :func:`wrap_errors`
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

#: The codes that an error can have.
CODES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Permissions error",
    404: "Resource is not found",
    408: "Timeout",
    422: "Parsing error",
    429: "Rate limit",
    500: "Internal exception",
    501: "Unclassified error",
    506: "SDK error in processing an error",
}

_UNCLASSIFIED = 501
_SDK_ERROR = 506

#: Of exception classes that :func:`set_internal_code` was put on.
_registered: dict[type[BaseException], int] = {}


class PanoplyException(Exception):
    """An error of a data source; with `retryable` false, reading is not tried again."""

    def __init__(self, args: Any = None, retryable: bool = True) -> None:
        super().__init__(args)
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.retryable)


class TokenValidationException(PanoplyException):
    """The access token could not be refreshed; `original_error` says why."""

    def __init__(self, original_error: BaseException, args: Any = None, retryable: bool = True) -> None:
        super().__init__(args, retryable)
        self.original_error = original_error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.original_error, self.args[0], self.retryable)


class IncorrectParamError(Exception):
    """A parameter cannot be used."""

    def __init__(self, msg: str = "Incorrect input parametr") -> None:
        super().__init__(msg)


class Phase(Enum):
    """When an error came about."""

    COLLECT = "collect"
    CONFIG = "config"


class DataSourceException(Exception):
    """Any error of a data source, in one form.

    Attributes:
        message: what the error said.
        code: one of :data:`CODES`.
        exception_cls: ``module.Class`` of the error.
        phase: when it came about.
        source_type, source_id, database_id: of the source; None where it does not tell.
        created_at: when, in UTC, without a time zone.
    """

    def __init__(
        self,
        message: str,
        code: int,
        exception_cls: str,
        phase: Phase,
        source_type: Any,
        source_id: Any,
        database_id: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.exception_cls = exception_cls
        self.phase = phase
        self.source_type = source_type
        self.source_id = source_id
        self.database_id = database_id
        self.created_at = datetime.now(UTC).replace(tzinfo=None)

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.message, self.code, self.exception_cls, self.phase)
        return type(self), (*values, self.source_type, self.source_id, self.database_id)

    def __str__(self) -> str:
        return self.message


def set_internal_code(code: int) -> Callable[[Class], Class]:
    """Give an exception class a code of :data:`CODES`; classes derived from it need their own.

    Raises ``RuntimeError`` for what is no exception class.
    """

    def register(cls: Class) -> Class:
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise RuntimeError("Unable to set error code for non-Exception class")
        _registered[cls] = code
        return cls

    return register


def wrap_errors(phase: Phase) -> Callable[[Function], Function]:
    """Have a function raise :class:`DataSourceException` in place of any other error.

    Its first argument is a data source or the dict of one, which the error's `source_type`, `source_id` and
    `database_id` are taken from. The outermost of several such functions names the phase.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except DataSourceException as error:
                error.phase = phase
                raise
            except Exception as error:
                raise _normalised(error, phase, args) from error

        return wrapped  # type: ignore[return-value]

    return decorate


def _normalised(error: Exception, phase: Phase, args: tuple[Any, ...]) -> DataSourceException:
    kind = type(error)
    code = _registered.get(kind, _UNCLASSIFIED)
    first = args[0] if args else None
    source = first if isinstance(first, dict) else getattr(first, "source", None)
    known = source if isinstance(source, dict) else {}
    return DataSourceException(
        str(error),
        code if code in CODES else _SDK_ERROR,
        f"{kind.__module__}.{kind.__qualname__}",
        phase,
        known.get("type"),
        known.get("id"),
        known.get("database"),
    )
