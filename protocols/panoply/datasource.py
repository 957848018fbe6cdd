"""What a data source is made of: the class that users derive theirs from, and its decorators. The names are the SDK's.

A data source is a class ``Stream`` in a module that may also have ``CONFIG``. Whoever runs it makes one with its
parameters, calls ``read`` until that returns None, and listens to its events. Nothing here runs one.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import random
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self, TypeVar, cast

import requests

from protocols.checks import check_callable, check_timeout, check_type
from protocols.panoply.emitter import Emitter
from protocols.panoply.source_errors import PanoplyException, TokenValidationException

log = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])

#: Of a request for a token: attempts in all, seconds before the second at most, doubled before each further one, and
#: seconds that one may take.
TOKEN_ATTEMPTS = 3
TOKEN_PAUSE = 1.0
TOKEN_TIMEOUT = 30.0

#: An empty dict that nobody can add to.
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

#: Events that whoever runs a data source listens to.
PROGRESS = "progress"
STATE = "source-state"
CHANGE = "source-change"


class DataSource(Emitter, ABC):
    """Reads rows from somewhere. Derive from it, and define :meth:`read`, and ``close`` if there is something to close.

    Args:
        source: the parameters. ``source["destination"]`` is the name of the table that the rows go to, and
            ``source["state"]``, if it is there, what the states told so far make up, to go on from.
        options: hints such as incremental keys, and a function ``logger``.
    """

    def __init__(self, source: dict[str, Any], options: Mapping[str, Any] = _NO_OPTIONS) -> None:
        self.source = source
        #: A dict of its own where none is given.
        self.options: Any = {} if options is _NO_OPTIONS else options

    @abstractmethod
    def read(self, batch_size: int | None = None) -> Any:
        """The next rows, about `batch_size` of them, as a list of dicts or of groups; None when there are no more.

        A row's ``__state`` names the state that holds once it is stored.
        """

    def log(self, *msgs: Any) -> None:
        """Tell of something; never of a credential."""
        logger = self.options.get("logger")
        if logger is not None:
            logger(msgs)
        else:
            log.info("%s", " ".join(map(str, msgs)))

    def progress(self, loaded: int | None, total: int | None, msg: str = "") -> None:
        """Tell how far reading is: `loaded` of `total`, in whatever unit; None where that is not known."""
        self.fire(PROGRESS, {"loaded": loaded, "total": total, "msg": msg})

    def state(self, state_id: Any, state: Mapping[str, Any]) -> None:
        """Tell where reading is, as part of one state that all those told make up.

        It holds when the rows are stored that have `state_id` under ``__state``; without such rows, those that the
        present :meth:`read` returns. Raises ``TypeError`` for a state that is no mapping or that JSON has no form for.
        """
        _check_json(state, "a state")
        self.fire(STATE, {"stateId": state_id, "state": state})

    def raw(self, tag: Any, raw: bytes, metadata: Any) -> dict[str, Any]:
        """A row of bytes, `raw` as base64, with fields that belong to it."""
        return {"type": "raw", "tag": tag, "raw": base64.b64encode(raw), "metadata": metadata}

    def fire(self, type: str, data: Any) -> Self:
        """Tell of an event; that of ``source-change`` is a dict of the parameters that changed, which are kept.

        Raises ``TypeError`` for a change that is no mapping or that JSON has no form for.
        """
        if type == CHANGE:
            _check_json(data, "a source-change")
        return super().fire(type, data)

    @classmethod
    def get_resource(cls, resource_id: Any, source: Any, options: Any = _NO_OPTIONS) -> Any:
        """One of :meth:`list_resources`, for those that have them."""
        raise NotImplementedError("`get_resource` method is not supported.")

    @classmethod
    def list_resources(cls, source: Any, options: Any = _NO_OPTIONS) -> Any:
        """What can be read, for those that can tell."""
        raise NotImplementedError("`list_resources` method is not supported.")


def _check_json(value: Any, what: str) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is a dict, not a {type(value).__name__}")
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{what} is a dict of what JSON has a form for: {error}") from None


def validate_token(
    refresh_url: str,
    exceptions: type[BaseException] | tuple[type[BaseException], ...] = (),
    callback: Callable[[str], object] | str | None = None,
    access_key: str = "access_token",
    refresh_key: str = "refresh_token",
) -> Callable[[Method], Method]:
    """Have a method of a data source get a new access token and try once more when it fails with `exceptions`.

    The token comes from a POST to `refresh_url` of ``options["refresh"]`` and of the refresh token. It is put into
    the source, told as a ``source-change``, and given to `callback`, a function or the name of a method. A refresh
    token that comes along replaces the old one likewise.

    Args:
        exceptions: with none, nothing is caught.
        access_key, refresh_key: the names of both tokens in the source and in the answer.

    Raises ``TypeError`` for arguments of a wrong type. The method raises :class:`TokenValidationException`, which is
    not retryable, if there is no new token.
    """
    check_type("refresh_url", refresh_url, str)
    classes = exceptions if isinstance(exceptions, tuple) else (exceptions,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise TypeError(f"exceptions must be an exception class or a tuple of some, not {exceptions!r:.80}")
    if not isinstance(callback, str) and callback is not None:
        check_callable("callback", callback)

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def wrapped(self: DataSource, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except exceptions:
                _refresh(self, refresh_url, callback, access_key, refresh_key)
            return method(self, *args, **kwargs)

        return cast(Method, wrapped)

    return decorate


def _refresh(
    self: DataSource,
    url: str,
    callback: Callable[[str], object] | str | None,
    access_key: str,
    refresh_key: str,
) -> None:
    response: requests.Response | None = None
    try:
        self.log("Revalidating the access token...")
        self.source[access_key] = None
        form = {**self.options["refresh"], refresh_key: self.source.get(refresh_key)}
        response = _post(url, form)
        response.raise_for_status()
        answer = response.json()
        token = answer[access_key]
        changed = {access_key: token}
        if answer.get(refresh_key) not in (None, form[refresh_key]):
            changed[refresh_key] = answer[refresh_key]
        self.source.update(changed)
        self.fire(CHANGE, changed)
        if callable(callback):
            callback(token)
        elif callback is not None:
            getattr(self, callback)(token)
    except Exception as error:
        self.source[access_key] = None
        # The answer's text may hold a token, so that only how it was refused is told.
        if response is not None:
            self.log(f"The token was refused: status {response.status_code} {response.reason}")
        self.log("".join(traceback.format_tb(error.__traceback__)))
        what = str(error) if not isinstance(error, KeyError) else f"{error} is missing"
        raise TokenValidationException(
            error, f"access token could not be refreshed ({what})", retryable=False
        ) from error


def _post(url: str, form: Mapping[str, Any]) -> requests.Response:
    attempt = 1
    while True:
        try:
            response = requests.post(url, data=form, timeout=TOKEN_TIMEOUT)
            response.raise_for_status()
            return response
        except requests.RequestException as error:
            if attempt == TOKEN_ATTEMPTS:
                if error.response is not None:
                    return error.response
                raise
        time.sleep(random.uniform(0, TOKEN_PAUSE * 2 ** (attempt - 1)))
        attempt += 1


def background_progress(
    message: str, waiting_interval: float = 600, timeout: float = 86400
) -> Callable[[Method], Method]:
    """Have a method of a data source tell `message` at once, and each `waiting_interval` seconds while it works.

    The method works on a thread of its own, and its result or exception is passed on. After `timeout` seconds it is
    left alone, and :class:`PanoplyException` is raised.

    Raises ``TypeError`` and ``ValueError`` for arguments that cannot be.
    """
    check_type("message", message, str)
    check_timeout(waiting_interval, "waiting_interval")
    check_timeout(timeout)

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def wrapped(self: DataSource, *args: Any, **kwargs: Any) -> Any:
            self.log("Creating background progress emitter")
            self.log(f"Timeout is set to {timeout} seconds")
            result: list[Any] = []
            failure: list[BaseException] = []

            def work() -> None:
                try:
                    result.append(method(self, *args, **kwargs))
                except BaseException as error:
                    failure.append(error)

            thread = threading.Thread(target=work, name="background-progress", daemon=True)
            thread.start()
            deadline = time.monotonic() + timeout
            while thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PanoplyException("Max waiting time exceeded")
                self.log(message)
                self.progress(None, None, message)
                thread.join(min(waiting_interval, left))
            if failure:
                raise failure[0]
            return result[0]

        return cast(Method, wrapped)

    return decorate
