"""Requests to a Kronos server and its replies, each with a timeout; what a failure means is in the errors.

Not here: what is asked (``client.py``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlunsplit

import orjson
import requests

from protocols.checks import check_token, check_type, check_url
from protocols.exits import renew_after_fork
from protocols.kronos.errors import (
    BadReply,
    ConnectionFailed,
    KronosError,
    RequestRefused,
    RequestTimedOut,
    ServerUnavailable,
)
from protocols.retry_after import parse_retry_after

#: Bytes asked for at a time from a streamed reply.
READ_BYTES = 131072

#: Refusals below 500 that say nothing of the request: a server that is slow or has too much to do.
_PASSING = frozenset({408, 425, 429})

#: Those that are about the address or who asks, and what to do.
_ADDRESS = {
    401: "check username and password, or token",
    403: "check the credentials, and whether the server allows such requests",
    404: "check the URL, is it a Kronos server?",
}


class Connection:
    """Sends requests to one server; several threads may use it at once, and a forked process too.

    Args:
        url: base URL, for example ``http://127.0.0.1:8151``; it may hold a path prefix and ``user:password@``.
        timeout: seconds to connect, to wait for each part of a streamed reply, and for the whole of any other.
        username, password: for HTTP basic authentication, as of a proxy before the server; or `token`, a bearer token.

    All calls raise :class:`KronosError`; the constructor ``TypeError`` and ``ValueError`` for arguments that cannot be.
    """

    def __init__(
        self, url: str, *, timeout: float = 30.0, username: str = "", password: str = "", token: str = ""
    ) -> None:
        parts = check_url(url, "a Kronos URL looks like http://host:port")
        for name, value in (("username", username), ("password", password), ("token", token)):
            check_type(name, value, str)
        #: The URL without credentials.
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self.timeout = timeout
        if not username and parts.username is not None:
            username, password = unquote(parts.username), unquote(parts.password or "")
        self._auth: requests.auth.AuthBase | None = None
        if token:
            self._auth = _Bearer(check_token(token))
        elif username:  # as bytes, of which requests would otherwise make Latin-1
            self._auth = requests.auth.HTTPBasicAuth(username.encode(), password.encode())
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: connections made before a fork belong to the parent."""
        self._session = requests.Session()
        self._session.auth = self._auth

    def close(self) -> None:
        self._session.close()

    def call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        """Send a request and return the reply."""
        deadline = time.monotonic() + self.timeout
        with self._send(method, path, body, self.timeout) as response:
            content = self._read(path, response, deadline)
        try:
            reply = orjson.loads(content)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or "@success" not in reply:
            raise BadReply(f"{self.url}{path}: not a reply of a Kronos server: {content!r:.200}")
        return reply

    def lines(
        self, path: str, body: bytes, size: int = READ_BYTES, timeout: float | None = None
    ) -> Iterator[bytes]:
        """The lines of a streamed reply without their ends, empty ones left out; read `size` bytes at a time."""
        timeout = self.timeout if timeout is None else timeout
        with self._send("POST", path, body, timeout) as response:
            rest = b""
            parts = response.iter_content(size)
            while True:
                try:
                    part = next(parts, None)
                except requests.RequestException as error:
                    raise self._failure(path, error, timeout) from error
                if part is None:
                    break
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line := line.rstrip(b"\r"):
                        yield line
            if rest:
                yield rest

    def _read(self, path: str, response: requests.Response, deadline: float) -> bytes:
        """The whole body, which is small. The timeout of the connection starts anew with each byte; this does not."""
        content = bytearray()
        try:
            for byte in response.iter_content(1):
                content += byte
                if time.monotonic() > deadline:
                    raise requests.Timeout
        except requests.RequestException as error:
            raise self._failure(path, error, self.timeout) from error
        return bytes(content)

    def _send(self, method: str, path: str, body: bytes | None, timeout: float) -> requests.Response:
        deadline = time.monotonic() + timeout
        try:
            response = self._session.request(
                method,
                self.url + path,
                data=body,
                timeout=timeout,
                stream=True,
                allow_redirects=False,
            )
            if response.status_code == 200:
                return response
            with response:
                raise self._refusal(path, response, self._read(path, response, deadline))
        except requests.RequestException as error:
            raise self._failure(path, error, timeout) from error

    def _failure(self, path: str, error: requests.RequestException, timeout: float) -> KronosError:
        what = f"{self.url}{path}: {type(error).__name__}"
        if isinstance(error, requests.Timeout) or "timed out" in str(error):
            return RequestTimedOut(f"{what}: no answer within {timeout:g} s; try again, it may have happened")
        return ConnectionFailed(f"{what}: no connection or a reply cut off; is the server running?")

    def _refusal(self, path: str, response: requests.Response, content: bytes) -> KronosError:
        status = response.status_code
        try:
            reply = orjson.loads(content)
        except ValueError:
            reply = None
        reply = reply if isinstance(reply, dict) else None
        reason = errors_of(reply) if reply else response.reason
        message = f"{self.url}{path}: status {status}: {reason}"
        if status in _PASSING or status >= 500:
            return ServerUnavailable(
                f"{message}; try again, and check the URL if it stays so",
                retry_after=parse_retry_after(response.headers.get("Retry-After")),
                status=status,
                reply=reply,
            )
        advice = _ADDRESS.get(status, "correct the request")
        return RequestRefused(f"{message}; {advice}", status=status, reply=reply)


class _Bearer(requests.auth.AuthBase):
    """Puts a bearer token into requests; a session's plain headers would yield to a ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def errors_of(reply: dict[str, Any]) -> str:
    """The error texts of a reply, at any depth, shortened."""
    texts: list[str] = []
    for name, value in reply.items():
        if name == "@errors" and isinstance(value, list):
            texts += map(str, value)
        elif isinstance(value, dict):
            texts.append(errors_of(value))
    return "; ".join(filter(None, texts))[:500]
