"""The blocking client of V3IO under the names of the official ``v3io`` package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from protocols.closing import Closing
from protocols.v3io.official.batch import Batch
from protocols.v3io.official.cursor import Cursor
from protocols.v3io.official.dataplane import Dataplane, Job
from protocols.v3io.official.flat import Flat
from protocols.v3io.official.kv import KvWithCursors
from protocols.v3io.official.objects import Container, Object
from protocols.v3io.official.response import Allowed, Response, Responses
from protocols.v3io.official.stream import Stream

#: What the settings of transports can be; all are one here.
TRANSPORT_KINDS = ("httpclient", "requests")


class Client(Flat[Response], Closing):
    """A client of V3IO's data plane, for use from any number of threads; a context manager.

    Args:
        logger: what to tell of requests, with a method ``debug``; None for the logger ``tablecast.v3io``.
        endpoint: URL, for example ``https://webapi.example.com``; without a scheme it is ``http://``. None for the
            environment's ``V3IO_API``.
        access_key: None for the environment's ``V3IO_ACCESS_KEY``.
        max_connections: most requests at a time, those of batches among them; None for 8. Further ones wait.
        timeout: seconds to connect, and then to wait for each part of a reply; None for 20.
        transport_kind: ``"httpclient"`` or ``"requests"``, which make no difference.
        logger_verbosity: level of the logger, if none is given: ``"DEBUG"`` or ``"INFO"``.
        transport_verbosity: ``"DEBUG"`` to tell the logger of each request and reply, without keys and bodies.
        retry_intervals: seconds before each time that a request is sent again, which happens only where it cannot
            take effect twice; None for (0.1, 0.5). Empty to send nothing again.
        verify: True to check TLS certificates against the usual authorities, or the path of a file of trusted ones.

    Attributes:
        kv, object, stream, container: the calls by group.
        batch: a batch that is always there; see :meth:`create_batch`.

    Raises ``RuntimeError`` without an endpoint, ``ValueError`` without an access key; ``TypeError`` and
    ``ValueError`` for arguments that cannot be. Calls on a closed client raise ``RuntimeError``.
    """

    def __init__(
        self,
        logger: Any = None,
        endpoint: str | None = None,
        access_key: str | None = None,
        max_connections: int | None = None,
        timeout: float | None = None,
        transport_kind: str = "httpclient",
        logger_verbosity: str | None = None,
        transport_verbosity: str = "info",
        *,
        retry_intervals: Sequence[float] | None = None,
        verify: Literal[True] | str = True,
    ) -> None:
        if transport_kind not in TRANSPORT_KINDS:
            raise ValueError(
                f"transport_kind must be one of {', '.join(TRANSPORT_KINDS)}, not {transport_kind!r:.80};"
                " for tests there is an embedded server: tablecast serve v3io"
            )
        plane = Dataplane(
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

        def run(job: Job) -> Response:
            return job(None)

        super().__init__(plane, run)
        self.kv = KvWithCursors(plane, run, Cursor)
        self.object = Object(plane, run)
        self.stream = Stream(plane, run)
        self.container = Container(plane, run)
        self.batch = self.create_batch()

    def __repr__(self) -> str:
        return f"Client({self._plane.url!r})"

    def create_batch(self) -> Batch:
        """A batch of its own."""
        return Batch(self._plane)

    def close(self) -> None:
        """Refuse further calls, wait for those of batches that are under way, and close the connections."""
        self._plane.close()

    def new_items_cursor(
        self,
        container: str,
        path: str,
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        attribute_names: str | Iterable[str] = "*",
        filter_expression: str | None = None,
        marker: str | None = None,
        sharding_key: str | None = None,
        limit: int | None = None,
        segment: int | None = None,
        total_segments: int | None = None,
        sort_key_range_start: str | None = None,
        sort_key_range_end: str | None = None,
    ) -> Cursor:
        """As ``kv.new_cursor``."""
        return self.kv.new_cursor(
            container,
            path,
            None,
            access_key,
            raise_for_status,
            attribute_names,
            filter_expression,
            marker,
            sharding_key,
            limit,
            segment,
            total_segments,
            sort_key_range_start,
            sort_key_range_end,
        )

    def put_items(
        self,
        container: str,
        path: str,
        items: Mapping[str, Mapping[str, Any]],
        access_key: str | None = None,
        raise_for_status: Allowed = None,
        condition: str | None = None,
    ) -> Responses:
        """Put items of the table `path`, several at a time, by key; their responses in the same order.

        All are checked before the first is sent. After one that fails, some of those behind it may have been put.
        """
        if not isinstance(items, Mapping):
            raise TypeError(f"items must be a dict of attributes by key, not {type(items).__name__}")
        self._plane.check(access_key, None)
        batch = self.create_batch()
        for key, attributes in items.items():
            batch.kv.put(container, path, key, attributes, access_key, raise_for_status, condition=condition)
        return batch.wait()
