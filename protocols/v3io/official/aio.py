"""The asyncio client of V3IO under the names of the official ``v3io`` package.

The same calls over the same connections as the blocking client's, each on one of a few threads: so both send the same
and fail the same. A task that is cancelled stops waiting; its request goes on to its end or timeout.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

from protocols.v3io.official.cursor import AsyncCursor
from protocols.v3io.official.dataplane import Dataplane, Job
from protocols.v3io.official.kv import KvWithCursors
from protocols.v3io.official.model import Model
from protocols.v3io.official.objects import Container, Object
from protocols.v3io.official.response import Response
from protocols.v3io.official.stream import Stream

M = TypeVar("M", bound=Model[Any])


class Client:
    """A client of V3IO's data plane for one event loop at a time; an async context manager.

    Arguments, attributes and errors are those of the blocking :class:`~protocols.v3io.official.client.Client`, but
    that all calls are awaited and take no ``transport_actions``, and that there are neither batches nor flat calls:
    ``asyncio.gather`` sends several at a time, at most `max_connections`. Arguments are checked at the call, before
    it is awaited.
    """

    def __init__(
        self,
        logger: Any = None,
        endpoint: str | None = None,
        access_key: str | None = None,
        max_connections: int | None = None,
        timeout: float | None = None,
        logger_verbosity: str | None = None,
        transport_verbosity: str = "info",
        retry_intervals: Sequence[float] | None = None,
        *,
        verify: Literal[True] | str = True,
    ) -> None:
        self._plane = plane = Dataplane(
            logger,
            endpoint,
            access_key,
            max_connections,
            timeout,
            logger_verbosity,
            transport_verbosity,
            retry_intervals,
            verify,
        )
        self.kv = _without_actions(KvWithCursors(plane, self._run, AsyncCursor))
        self.object = _without_actions(Object(plane, self._run))
        self.stream = _without_actions(Stream(plane, self._run))
        self.container = _without_actions(Container(plane, self._run))

    def __repr__(self) -> str:
        return f"Client({self._plane.url!r})"

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse further calls, wait for those under way, and close the connections."""
        await asyncio.to_thread(self._plane.close)

    async def _run(self, job: Job) -> Response:
        return await asyncio.wrap_future(self._plane.submit(job, None))


def _without_actions(model: M) -> M:
    """The model, whose calls have the arguments of the official asyncio client: all but ``transport_actions``."""
    for name, method in inspect.getmembers(model, inspect.ismethod):
        signature = inspect.signature(method)
        if "transport_actions" in signature.parameters and not name.startswith("_"):
            setattr(model, name, _adapted(method, signature))
    return model


def _adapted(method: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    kept = [each for name, each in signature.parameters.items() if name != "transport_actions"]
    shorter = signature.replace(parameters=kept)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(**shorter.bind(*args, **kwargs).arguments)

    call.__signature__ = shorter  # type: ignore[attr-defined]
    return call
