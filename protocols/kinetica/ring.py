"""The HTTP exchange with a ring of Kinetica clusters: credentials, TLS, time limits, failover.

When the cluster in use fails, the next one that is running and not draining takes over. The official client
repeats every call there, and so may insert rows twice; this one repeats a change only if it provably never
left this machine.

Not here: what the calls mean (``client.py``).
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import ssl
from collections.abc import Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal, NamedTuple, NoReturn
from urllib.parse import SplitResult, unquote

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from protocols.checks import check_token, check_type, check_url, check_verify
from protocols.kinetica import wire
from protocols.kinetica.errors import (
    AuthenticationFailed,
    CertificateRejected,
    ConnectionFailed,
    OutcomeUnknown,
    RequestRefused,
    ServerUnavailable,
    UnexpectedReply,
)

#: Seconds to wait for the status of a cluster that might take over; a hung one must not hold up the ring.
STATUS_TIMEOUT = 5.0

#: Idle connections kept per cluster. More threads than this still work, at a connection per call.
POOL_SIZE = 32

_log = logging.getLogger(__name__)

# Endpoints below these change nothing, so they may be repeated anywhere.
_READS = ("/show/", "/has/", "/get/")

_EMPTY: dict[str, Any] = {"string": "", "bytes": b"", "int": 0, "long": 0, "double": 0.0, "boolean": False}


class ClusterStatus(NamedTuple):
    """A cluster's own account: `system` is ``running`` if it serves, `drained` is empty outside a ring."""

    system: str
    drained: str

    @property
    def usable(self) -> bool:
        return self.system == "running" and self.drained != "draining"


class _Cluster(NamedTuple):
    url: str
    headers: dict[str, str]


class _ClusterFailed(Exception):
    """A failover trigger. `answered`: the cluster was reached; `unsent`: the request provably never left."""

    def __init__(self, reason: str, *, answered: bool = False, unsent: bool = False) -> None:
        super().__init__(reason)
        self.answered, self.unsent = answered, unsent


class Ring:
    """Clusters that serve the same tables, of which one at a time is used; for any number of threads.

    The arguments are those of :class:`protocols.kinetica.client.KineticaClient`. Raises ``TypeError`` and
    ``ValueError`` for one that cannot be.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        username: str | None,
        password: str | None,
        token: str | None,
        timeout: float,
        verify: Literal[True] | str | os.PathLike[str],
    ) -> None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout is a positive number of seconds, not {timeout!r}")
        trusted = check_verify(verify)
        for name, value in (("username", username), ("password", password)):
            if value is not None:
                check_type(name, value, str)
        if password is not None and not username:
            raise ValueError("a password needs a username")
        parts = [_split_url(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not parts:
            raise ValueError("at least one URL is needed, for example http://localhost:9191")
        self._clusters = [
            _Cluster(_base_url(part), _headers(part, username, password, token)) for part in parts
        ]
        self._current = 0
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = trusted
        # Kinetica sets no cookies, and the jar is the one part of a session that threads must not share.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=0))

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    @property
    def urls(self) -> tuple[str, ...]:
        """All base URLs, without credentials."""
        return tuple(cluster.url for cluster in self._clusters)

    @property
    def url(self) -> str:
        """The base URL in use, without credentials."""
        return self._clusters[self._current].url

    def call(self, endpoint: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`protocols.kinetica.client.KineticaClient.call`."""
        definition = wire.ENDPOINTS.get(endpoint)
        if definition is None:
            raise ValueError(f"unknown endpoint {endpoint!r}; one of {', '.join(wire.ENDPOINTS)}")
        body = _encode_request(definition, fields)
        failures: list[tuple[str, _ClusterFailed]] = []
        first = self._current
        for step in range(len(self._clusters)):
            index = (first + step) % len(self._clusters)
            cluster = self._clusters[index]
            try:
                if step > 0:
                    self._require_usable(cluster)
                reply = self._post(cluster, definition, body, self._timeout)
            except _ClusterFailed as failure:
                failures.append((cluster.url, failure))
                if not (failure.unsent or endpoint.startswith(_READS)):
                    self._current = (index + 1) % len(self._clusters)
                    _raise_unknown(endpoint, failures)
                continue
            if step > 0:
                _log.warning("Kinetica cluster %s took over: %s", cluster.url, _describe(failures))
                self._current = index
            return reply
        _raise_all_failed(endpoint, failures)

    def _require_usable(self, cluster: _Cluster) -> None:
        definition = wire.ENDPOINTS["/show/system/status"]
        body = _encode_request(definition, {})
        try:
            reply = self._post(cluster, definition, body, min(self._timeout, STATUS_TIMEOUT))
            status = parse_status(reply["status_map"])
        except _ClusterFailed as failure:  # whatever was asked for itself has not been sent here
            raise _ClusterFailed(str(failure), answered=failure.answered, unsent=True) from failure
        except (RequestRefused, UnexpectedReply) as error:
            raise _ClusterFailed(str(error), answered=True, unsent=True) from error
        if not status.usable:
            reason = f"not usable (system {status.system or 'unknown'}, drain {status.drained or 'unknown'})"
            raise _ClusterFailed(reason, answered=True, unsent=True)

    def _post(
        self, cluster: _Cluster, definition: wire.Endpoint, body: bytes, timeout: float
    ) -> dict[str, Any]:
        try:
            response = self._session.post(
                cluster.url + definition.path,
                data=body,
                headers=cluster.headers,
                timeout=timeout,
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _failed_connection(error, cluster.url, timeout) from None
        http = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
        if response.status_code == 401:
            raise AuthenticationFailed(
                f"{cluster.url} refused the credentials ({http}); check username and password, or the token"
            )
        if response.status_code == 404 or response.status_code >= 500:
            raise _ClusterFailed(http, answered=True)
        try:
            reply = wire.decode_reply(definition, response.content)
        except ValueError:
            raise _ClusterFailed(
                f"the answer ({http}) is not Kinetica's; is the URL right?", answered=True
            ) from None
        if not reply.ok and wire.is_failover_message(reply.message):
            raise _ClusterFailed(reply.message, answered=True)
        if not reply.ok:
            raise RequestRefused(f"{definition.path} on {cluster.url}: {reply.message or 'refused'}")
        if reply.data is None:
            raise _ClusterFailed(f"the answer ({http}) is empty", answered=True)
        return reply.data


def _split_url(url: str) -> SplitResult:
    advice = (
        "malformed URL; write http://host:9191 or https://host:8082/gpudb-0, with any"
        " special character of a user name or password percent-encoded"
    )
    part = check_url(url, advice)
    if part.query or part.fragment:
        raise ValueError(advice)
    return part


def _base_url(part: SplitResult) -> str:
    host = f"[{part.hostname}]" if ":" in str(part.hostname) else part.hostname
    path = part.path.rstrip("/")
    port = part.port or (wire.DEFAULT_HTTP_PORT if part.scheme == "http" and not path else None)
    return f"{part.scheme}://{host}{f':{port}' if port else ''}{path}"


def _headers(
    part: SplitResult, username: str | None, password: str | None, token: str | None
) -> dict[str, str]:
    headers = {"Content-type": wire.BINARY, "Accept": wire.BINARY}
    if username is None and part.username:
        username, password = unquote(part.username), unquote(part.password or "")
    if token is not None:
        headers["Authorization"] = f"Bearer {check_token(token)}"
    elif username:
        pair = f"{username}:{password or ''}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


def _encode_request(definition: wire.Endpoint, fields: Mapping[str, Any]) -> bytes:
    record = {field["name"]: _empty(field["type"]) for field in definition.request["fields"]}
    unknown = fields.keys() - record.keys()
    if unknown:
        raise ValueError(
            f"{definition.path} has no field {', '.join(sorted(unknown))}; it has {', '.join(record)}"
        )
    try:
        return wire.encode(definition.request, {**record, **fields})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{definition.path}: a field does not fit: {type(error).__name__}: {error}"
        ) from error


def _empty(avro: Any) -> Any:
    if isinstance(avro, dict):
        return [] if avro["type"] == "array" else {}
    return _EMPTY[avro]


def parse_status(status_map: Mapping[str, str]) -> ClusterStatus:
    try:
        system = json.loads(status_map["system"])
        ha = json.loads(status_map.get("ha_status") or "{}")
        return ClusterStatus(str(system["status"]), str(ha.get("drained", "")))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnexpectedReply(f"/show/system/status gives no system status: {error!r}") from error


def _failed_connection(error: Exception, url: str, timeout: float) -> _ClusterFailed | CertificateRejected:
    """What a failed exchange means, in our words: the library's hold addresses and object names."""
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", None) or inner
    if any(isinstance(arg, ssl.SSLCertVerificationError) for arg in getattr(reason, "args", ())):
        return CertificateRejected(
            f"the certificate of {url} is not trusted; pass the path of its authority's certificate as verify"
        )
    if isinstance(error, requests.ConnectTimeout):
        return _ClusterFailed(f"no connection within {timeout:g} s", unsent=True)
    if isinstance(error, requests.Timeout):
        return _ClusterFailed(f"no answer within {timeout:g} s")
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        cause = getattr(reason.__cause__, "strerror", None) or "no connection"
        return _ClusterFailed(cause, unsent=True)
    causes = [
        arg.strerror or type(arg).__name__ for arg in getattr(reason, "args", ()) if isinstance(arg, OSError)
    ]
    return _ClusterFailed(f"connection lost before the answer ({(causes or [type(error).__name__])[0]})")


def _describe(failures: Sequence[tuple[str, _ClusterFailed]]) -> str:
    return "; ".join(f"{url}: {failure}" for url, failure in failures)


def _raise_unknown(endpoint: str, failures: Sequence[tuple[str, _ClusterFailed]]) -> NoReturn:
    raise OutcomeUnknown(
        f"{endpoint} may have been applied, so it was not repeated; look before you do: {_describe(failures)}"
    ) from failures[-1][1]


def _raise_all_failed(endpoint: str, failures: Sequence[tuple[str, _ClusterFailed]]) -> NoReturn:
    answered = any(failure.answered for _, failure in failures)
    error = ServerUnavailable if answered else ConnectionFailed
    scope = "every cluster" if len(failures) > 1 else "the only cluster"
    raise error(
        f"{endpoint} failed on {scope}: {_describe(failures)};"
        " check that it is up and that the URL is right, then try again"
    ) from failures[-1][1]
