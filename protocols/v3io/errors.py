"""Errors of the V3IO client. All pickle, and none shows credentials.

::

    V3ioError
    ├── TransientError        retryable: try again after a pause
    │   ├── ConnectionFailed    no reply, or a reply that was cut off; the request may have taken effect
    │   ├── RequestTimedOut     no reply in time; the request may have taken effect
    │   └── ServerUnavailable   status 408, 429 or 5xx
    └── TerminalError         the same request will fail again
        ├── AuthenticationFailed  status 401, or 403 for a wrong access key
        ├── CertificateRejected   the server's TLS certificate is not trusted; nothing was sent
        ├── ConditionFalse        the condition of a put or update does not hold; nothing was changed
        ├── NotFound              no such container, object, item or stream
        ├── AlreadyExists         there is something at the path of a new stream
        ├── RequestRefused        any other status
        └── BadReply              the reply is not V3IO's
"""

from __future__ import annotations

from typing import ClassVar


class V3ioError(Exception):
    """A request failed.

    Attributes:
        retryable: whether the same request may succeed later.
        refuses_all: whether other requests will fail like this one: it is not about what was sent.
        retry_after: seconds that the server asked to wait, or None.
        status: HTTP status of the reply, or None if there was none.
        code: V3IO's ``ErrorCode``, or None if the reply has none.
    """

    retryable: ClassVar[bool] = False
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


class ConnectionFailed(TransientError):
    """The server could not be reached, or the connection broke before the reply was complete."""


class RequestTimedOut(TransientError):
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
