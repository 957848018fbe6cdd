"""A client of Panoply's intake: one SQS message per call, confirmed by the digest that SQS answers with.

Not here: buffering and retries. Whoever sends decides from an error's ``retryable``.
"""

from __future__ import annotations

import hashlib
import re

import requests

from protocols.checks import check_type, check_url
from protocols.panoply import wire
from protocols.panoply.errors import MessageRefused, TransientError
from protocols.retry_after import parse_retry_after

#: SQS answers these with a status below 500 and yet means: later.
_BUSY = re.compile(r"Throttl|OverLimit|RequestTimeout|Unavailable|InternalError|InternalFailure")

_WHAT_TO_DO = {
    "NonExistentQueue": "check apikey and apisecret",
    "QueueDoesNotExist": "check apikey and apisecret",
    "AccessDenied": "check apikey and apisecret",
    "InvalidParameterValue": "lower max_message_bytes",
    "MessageTooLong": "lower max_message_bytes",
}


class PanoplyClient:
    """Sends messages to the queue of `credentials`; several threads may use it at once.

    Args:
        credentials: whose queue.
        url: base URL of a service that speaks SQS's, in place of Amazon's in the credentials' region.
        timeout: seconds to connect, and to wait for the answer.
    """

    def __init__(
        self, credentials: wire.Credentials, url: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._credentials = credentials
        self._timeout = timeout
        self.address = check_type("url", url or credentials.url, str).rstrip("/") + credentials.path

    def __repr__(self) -> str:
        return f"PanoplyClient({self.host!r})"

    @property
    def address(self) -> str:
        """Where messages are sent: the queue's URL, which is secret. Assign to it to send elsewhere."""
        return self._address

    @address.setter
    def address(self, address: str) -> None:
        parts = check_url(
            address, "the address of a queue looks like https://host/account/name", "the address"
        )
        self._address = address
        #: Where that is, as messages name it.
        self.host = parts.netloc.rpartition("@")[2]
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: connections made before a fork belong to the parent."""
        self._session = requests.Session()
        # Proxies as the environment says, but looked up once, and no credentials from files.
        self._session.trust_env = False
        self._session.proxies = dict(requests.utils.get_environ_proxies(self._address, no_proxy=None))

    def send(self, message: bytes | memoryview, encoded: bytes | memoryview | None = None) -> bytes:
        """Send records as one message; returns SQS's answer when it has it. Raises :class:`PanoplyError`.

        `encoded` is the message percent-encoded, for who has it already.
        """
        try:
            response = self._session.post(
                self._address,
                data=wire.request_body(encoded or wire.percent_encoded(bytes(message)), self._credentials),
                headers={"Content-Type": wire.CONTENT_TYPE},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            # Its text has the queue's name, and its request the credentials.
            slow = isinstance(error, requests.Timeout)
            reason = f"no answer within {self._timeout:g} s" if slow else "no connection, or it broke"
            raise TransientError(f"{self.host}: {type(error).__name__}: {reason}") from None
        answer = response.content[:10_000].decode(errors="replace")
        if response.status_code == 200:
            digest = re.search(r"<MD5OfMessageBody>\s*([0-9a-f]{32})\s*<", answer)
            if digest is None or digest[1] != hashlib.md5(message, usedforsecurity=False).hexdigest():
                raise TransientError(
                    f"{self.host}: the answer does not confirm the message; sending it again"
                )
            return response.content
        code = re.search(r"<Code>\s*([\w.]{1,100})\s*<", answer)
        name = code[1] if code else "no reason given"
        text = f"{self.host}: status {response.status_code}: {name}"
        if response.status_code == 429 or response.status_code >= 500 or _BUSY.search(name):
            wish = parse_retry_after(response.headers.get("Retry-After"))
            raise TransientError(f"{text}; try again later", wish)
        advice = _WHAT_TO_DO.get(name.rpartition(".")[2], "check apikey, apisecret and url")
        raise MessageRefused(f"{text}; {advice}", refuses_all=advice.startswith("check"))

    def close(self) -> None:
        self._session.close()
