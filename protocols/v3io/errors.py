"""Errors of the V3IO client. All pickle, and none shows credentials.

::

    V3ioError
    ├── TransientError        retryable: try again after a pause
    │   ├── ConnectionFailed    no reply, or a reply that was cut off; the request may have taken effect
    │   │   └── NotConnected      no connection, so that nothing was sent
    │   ├── RequestTimedOut     no reply in time; the request may have taken effect
    │   └── ServerUnavailable   status 408, 429 or 5xx
    ├── HttpResponseError     a status that the caller of ``tablecast.v3io`` does not allow
    └── TerminalError         the same request will fail again
        ├── AuthenticationFailed  status 401, or 403 for a wrong access key
        ├── CertificateRejected   the server's TLS certificate is not trusted; nothing was sent
        ├── ConditionFalse        the condition of a put or update does not hold; nothing was changed
        ├── NotFound              no such container, object, item or stream
        ├── AlreadyExists         there is something at the path of a new stream
        ├── RequestRefused        any other status
        └── BadReply              the reply is not V3IO's
    InvalidAttribute          a value that no attribute can hold; nothing was sent

:class:`ConnectionFailed` is a ``ConnectionError`` as well, :class:`RequestTimedOut` a ``TimeoutError`` and
:class:`InvalidAttribute` an ``AttributeError``, as callers of the official ``v3io`` package expect.
"""

from __future__ import annotations

from typing import ClassVar

#: Statuses of a server that may do the same request later; so may any from 500 on.
TRANSIENT_STATUSES = (408, 429)


class V3ioError(Exception):
    """A request failed.

    Attributes:
        retryable: whether the same request may succeed later.
        refuses_all: whether other requests will fail like this one: it is not about what was sent.
        retry_after: seconds that the server asked to wait, or None.
        status: HTTP status of the reply, or None if there was none.
        code: V3IO's ``ErrorCode``, or None if the reply has none.
    """

    retryable: bool = False
    refuses_all: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.code = code


class TransientError(V3ioError):
    """The request may succeed if it is sent again."""

    retryable = True


class ConnectionFailed(TransientError, ConnectionError):
    """The server could not be reached, or the connection broke before the reply was complete."""


class NotConnected(ConnectionFailed):
    """The server could not be reached: nothing was sent."""


class RequestTimedOut(TransientError, TimeoutError):
    """The server did not answer in time; the request may have taken effect."""


class ServerUnavailable(TransientError):
    """The server is busy or failing."""


class TerminalError(V3ioError):
    """The same request will fail again."""


class AuthenticationFailed(TerminalError):
    """The server does not accept the access key."""

    refuses_all = True


class CertificateRejected(TerminalError):
    """The server's TLS certificate could not be verified."""

    refuses_all = True


class ConditionFalse(TerminalError):
    """The condition expression is false, so nothing was changed."""


class NotFound(TerminalError):
    """There is no such container, object, item or stream."""

    refuses_all = True


class AlreadyExists(TerminalError):
    """There is something at the path already."""


class RequestRefused(TerminalError):
    """The server refused the request."""


class BadReply(TerminalError):
    """The reply is not one of a V3IO server; check the URL."""

    refuses_all = True


class HttpResponseError(V3ioError):
    """The reply's status is not one of those that the call allows, or the reply cannot be read.

    Attributes:
        status_code: HTTP status of the reply.
    """

    def __init__(self, message: str = "", status_code: int | None = None) -> None:
        super().__init__(message, status=status_code)
        self.status_code = status_code
        self.retryable = status_code is not None and is_transient(status_code)

    def __repr__(self) -> str:
        return f"HttpResponseError({str(self)!r}, {self.status_code})"


class InvalidAttribute(AttributeError, ValueError):
    """A value, or a name, that no attribute of an item can have."""


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later, by the status of its reply."""
    return status in TRANSIENT_STATUSES or status >= 500
