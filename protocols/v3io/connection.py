"""The HTTP connections to a V3IO server: one request, one reply, nothing repeated, for all clients of this package.

What a status means is the caller's business; here only what happens to connections is turned into errors.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal
from urllib.parse import urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from protocols.checks import check_url, check_verify
from protocols.v3io import wire
from protocols.v3io.errors import CertificateRejected, ConnectionFailed, NotConnected, RequestTimedOut


class Connection:
    """Kept connections to one server, for use from any number of threads.

    Args:
        url: base URL, for example ``https://webapi.example.com`` or ``http://127.0.0.1:8081``.
        access_key: sent with each request that brings none of its own; None for servers that ask for none.
        timeout: seconds to connect, and then to wait for each part of a reply.
        connections: most requests at a time; further ones wait.
        verify: True to check TLS certificates against the usual authorities, or the path of a file of
            trusted ones. There is no way to skip the check.

    Proxies and credentials of the environment are not used. Raises ``ValueError`` for what cannot be a URL, a key or
    such a file.
    """

    def __init__(
        self,
        url: str,
        access_key: str | None,
        *,
        timeout: float,
        connections: int,
        verify: Literal[True] | str,
    ) -> None:
        advice = "a V3IO URL looks like http://host:port; the access key is given apart"
        parts = check_url(url, advice)
        if "@" in parts.netloc:
            raise ValueError(advice)
        check_access_key(access_key)
        trusted = check_verify(verify)
        self.url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._timeout = timeout
        self._closed = threading.Event()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = trusted
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # What is stored is what is wanted, and how long it is.
        self._session.headers["Accept-Encoding"] = "identity"
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections, pool_block=True)
        self._session.mount(f"{parts.scheme}://", adapter)
        if access_key is not None:
            self._session.headers[wire.SESSION_HEADER] = access_key

    def check_open(self) -> None:
        """Raises ``RuntimeError`` after :meth:`close`."""
        if self._closed.is_set():
            raise RuntimeError("Cannot send request on a closed client")

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until :meth:`close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        self._closed.set()
        self._session.close()

    def send(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """The reply to a request, whatever its status; redirects are not followed.

        Args:
            path: below the base URL, percent-encoded, with its query.
            data: the body: bytes, or a binary file, which is sent from where it stands.

        Raises :class:`ConnectionFailed`, :class:`RequestTimedOut` and :class:`CertificateRejected`.
        """
        self.check_open()
        what = self.describe(method, path)
        try:
            return self._session.request(
                method,
                self.url + path,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            raise CertificateRejected(f"{what}: the server's certificate is not trusted") from error
        except requests.RequestException as error:
            reason = getattr(error.args[0], "reason", None) if error.args else None
            if isinstance(reason, NewConnectionError | ConnectTimeoutError):
                raise NotConnected(f"{what}: no connection to the server; is the server running?") from error
            if isinstance(error, requests.Timeout) or "timed out" in str(error):
                raise RequestTimedOut(
                    f"{what}: no answer within {self._timeout:g} s; it may have happened"
                ) from error
            raise ConnectionFailed(
                f"{what}: {type(error).__name__}: no connection or a reply cut off; is the server running?"
            ) from error

    def describe(self, method: str, path: str) -> str:
        """The request in a few words, for messages."""
        return f"{method} {self.url}{path:.200}"


def check_access_key(access_key: str | None) -> None:
    """Raises ``ValueError`` for what no header can hold."""
    if access_key is not None and not (access_key and access_key.isascii() and access_key.isprintable()):
        raise ValueError("the access key must be printable ASCII text")
