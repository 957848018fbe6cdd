"""Errors of the Kronos client. All pickle, and none shows credentials.

::

    KronosError
    ├── TransientError        retryable: try again after a pause
    │   ├── ConnectionFailed    no reply, or a reply that was cut off
    │   ├── RequestTimedOut     no reply in time; the request may have taken effect
    │   ├── ServerUnavailable   status 408, 425, 429 or 5xx, or the server could not write
    │   └── BadReply            the reply is not Kronos', as of a proxy in between
    └── TerminalError         the same request will fail again
        ├── RequestRefused      any other status but 200
        └── EventsRefused       events were refused, the others of the request are stored
"""

from __future__ import annotations

from typing import Any, ClassVar


class KronosError(Exception):
    """A request failed.

    Attributes:
        retryable: whether the same request may succeed later.
        retry_after: seconds that the server asked to wait, or None.
        status: HTTP status of the reply, or None if there was none.
        reply: the decoded reply, or None.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        reply: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.reply = reply


class TransientError(KronosError):
    """The request may succeed if it is sent again."""

    retryable = True


class ConnectionFailed(TransientError):
    """The server could not be reached, or the connection broke before the reply was complete."""


class RequestTimedOut(TransientError):
    """The server did not answer in time; the request may have taken effect."""


class ServerUnavailable(TransientError):
    """The server is busy, failing or cannot write."""


class TerminalError(KronosError):
    """The same request will fail again."""


class RequestRefused(TerminalError):
    """The server refused the whole request."""

    @property
    def refuses_all(self) -> bool:
        """Whether it is about the address, who asks or the namespace, so that no other events would fare better."""
        return self.status not in (400, 413, 422) or self.unknown_namespace

    @property
    def unknown_namespace(self) -> bool:
        """Whether the server does not know the namespace."""
        return "NamespaceMissing" in str(self)


class EventsRefused(TerminalError):
    """The server refused some events and stored the rest; do not send the whole request again."""


class BadReply(TransientError):
    """The reply is not one of a Kronos server; check the URL."""
