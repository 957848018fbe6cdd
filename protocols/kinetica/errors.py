"""What can go wrong between this client and a Kinetica server, as one tree.

::

    KineticaError
    ├── ConnectionFailed       retryable   no cluster could be reached, or none answered in time
    ├── ServerUnavailable      retryable   a cluster answered, but it is not able to serve
    ├── OutcomeUnknown                     a change was sent and its answer was lost: it may have been applied
    ├── AuthenticationFailed               wrong or missing credentials
    ├── CertificateRejected                the server's TLS certificate is not trusted
    ├── RequestRefused                     the server understood and said no
    │   └── TableNotFound
    ├── MonitorsDisabled                   the server publishes no table-monitor events
    └── UnexpectedReply                    a reply that lacks what the protocol promises

Messages are one line: what happened, to what, and what to do next. They never hold credentials.
"""

from __future__ import annotations

from typing import ClassVar


class KineticaError(Exception):
    """Any failure of a call to Kinetica. It survives pickling, so it may cross processes.

    `message` is folded into one line. `retryable` says whether repeating the same call later, unchanged, is
    safe and may succeed.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        # The one positional argument is what `pickle` calls the class with, also if it came by keyword.
        super().__init__(" ".join(message.split()))


class ConnectionFailed(KineticaError):
    """No connection could be made, or it broke or stayed silent before an answer came."""

    retryable = True


class ServerUnavailable(KineticaError):
    """A cluster answered that it can't serve now (an error, a shutdown, a drain), or it is no Kinetica."""

    retryable = True


class OutcomeUnknown(KineticaError):
    """A call that changes something was sent and no answer came, so it may or may not have been applied."""


class AuthenticationFailed(KineticaError):
    """The server does not accept the user name and password, or the token."""


class CertificateRejected(KineticaError):
    """The server's TLS certificate could not be verified; nothing was sent."""


class RequestRefused(KineticaError):
    """The server refused the request; the message carries its text."""


class TableNotFound(RequestRefused):
    """The request names a table that does not exist."""


class MonitorsDisabled(KineticaError):
    """The server is configured to publish no table-monitor events (``set_monitor_port = -1``)."""


class UnexpectedReply(KineticaError):
    """A well-formed reply lacks something that the protocol promises."""
