"""Replies of V3IO's calls as the official ``v3io`` package shows them, and which statuses are failures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal
from xml.etree import ElementTree

import orjson

from protocols.v3io.errors import HttpResponseError
from protocols.v3io.official.outputs import ErrorOutput

#: Most bytes of a body that an error shows.
_SHOWN_BYTES = 1000


class RaiseForStatus:
    """Values of ``raise_for_status`` besides a list of the statuses that are no failure."""

    never: Literal["never"] = "never"
    always: Literal["always"] = "always"


#: What callers give as ``raise_for_status``: None is ``always``, unless a batch's ``wait`` says otherwise.
Allowed = None | str | Collection[int]


def check_allowed(value: Allowed, name: str = "raise_for_status") -> Allowed:
    """`value` for keeping: a collection is copied, an empty one is None. Raises ``TypeError`` and ``ValueError``."""
    if value is None or value in (RaiseForStatus.never, RaiseForStatus.always):
        return value
    if isinstance(value, str):
        raise ValueError(f'{name} must be "never", "always" or a list of statuses, not {value!r:.80}')
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError(f"{name} must be a list of statuses, such as [200, 404], not {value!r:.80}")
    if any(isinstance(status, bool) or not isinstance(status, int) for status in value):
        raise TypeError(f"{name} must hold statuses such as 404, not {list(value)!r:.80}")
    return tuple(value) or None


class Response:
    """A reply.

    Attributes:
        status_code: HTTP status.
        headers: by name, in any case.
        body: bytes.
    """

    def __init__(
        self, output: Callable[[Any], Any] | None, status_code: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        self.status_code = status_code
        self.headers = headers
        self.body = body
        self._kind = output
        self._output: Any = None

    def __repr__(self) -> str:
        return f"<Response {self.status_code}, {len(self.body)} bytes>"

    @property
    def output(self) -> Any:
        """What the body says, by the call's class in ``outputs.py``, or :class:`ErrorOutput` if the call failed.

        None if the call has no output, or there is no body. Raises :class:`HttpResponseError` if the body cannot be
        read.
        """
        if self._output is None and self._kind is not None and self.body:
            self._output = self._parse(self._kind)
        return self._output

    def _parse(self, kind: Callable[[Any], Any]) -> Any:
        if self.status_code >= 300:
            return ErrorOutput(self.status_code, _error_fields(self.body))
        try:
            if self.body.lstrip()[:1] in (b"{", b"["):
                return kind(orjson.loads(self.body))
            return kind(ElementTree.fromstring(self.body))
        except (AttributeError, KeyError, TypeError, ValueError, ElementTree.ParseError) as error:
            raise HttpResponseError(
                f"Failed to parse response with status {self.status_code}:"
                f" {self.body[:_SHOWN_BYTES]!r} ({type(error).__name__}: {error!s:.200})",
                self.status_code,
            ) from None

    def raise_for_status(self, expected_statuses: Allowed = None) -> None:
        """Raise :class:`HttpResponseError` if the status is none of those expected.

        Args:
            expected_statuses: None or ``"always"`` for all below 300, ``"never"`` for all, or a list of statuses.
        """
        expected = check_allowed(expected_statuses, "expected_statuses")
        if expected == RaiseForStatus.never:
            return
        if expected is None or isinstance(expected, str):
            expected = range(300)
        if self.status_code in expected:
            return
        if 308 <= self.status_code < 400:
            message = "Request failed due to a Permanent Redirect."
            if location := self.headers.get("Location"):
                message += f" Please change URL to: {location}"
        else:
            message = f"Request failed with status {self.status_code}: {self.body[:_SHOWN_BYTES]!r}"
        raise HttpResponseError(message, self.status_code)


class Responses(list[Response]):
    """The replies of several calls, in their order."""

    def __init__(self, responses: Iterable[Response] = ()) -> None:
        super().__init__(responses)

    @property
    def responses(self) -> Responses:
        """Itself, as the official package's is no list."""
        return self

    @property
    def success(self) -> bool:
        """Whether all have a status below 300."""
        return all(response.status_code < 300 for response in self)

    def add_response(self, response: Response) -> None:
        self.append(response)

    def raise_for_status(self, expected_statuses: Allowed = None) -> None:
        """As :meth:`Response.raise_for_status`, for the first that fails."""
        for response in self:
            response.raise_for_status(expected_statuses)


def _error_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
