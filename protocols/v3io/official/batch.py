"""Calls that are collected, and sent together."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait

from protocols.v3io.official.dataplane import Dataplane, Job
from protocols.v3io.official.flat import Flat
from protocols.v3io.official.kv import Kv
from protocols.v3io.official.objects import Container, Object
from protocols.v3io.official.response import Allowed, Response, Responses, check_allowed
from protocols.v3io.official.stream import Stream


class Batch(Flat[None]):
    """Calls that are kept, and sent by :meth:`wait`, several at a time. For one thread; each can have its own.

    Has the calls of a client, flat and by group, except for cursors and ``put_items``. They check their arguments at
    once and return None.
    """

    def __init__(self, plane: Dataplane) -> None:
        self._jobs: list[Job] = []
        super().__init__(plane, self._keep)
        self.kv = Kv(plane, self._keep)
        self.object = Object(plane, self._keep)
        self.stream = Stream(plane, self._keep)
        self.container = Container(plane, self._keep)

    def _keep(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, raise_for_status: Allowed = None) -> Responses:
        """Send the calls, at most as many at a time as there are connections; their responses in the same order.

        The first failure is raised once what is under way has ended; the calls behind it are dropped. The batch is
        empty then, and can be used again.

        Args:
            raise_for_status: for calls that have none of their own.
        """
        allowed = check_allowed(raise_for_status)
        jobs, self._jobs = self._jobs, []
        responses = Responses()
        under_way: deque[Future[Response]] = deque()
        try:
            for job in jobs:
                if len(under_way) == self._plane.connections:
                    responses.append(under_way.popleft().result())
                under_way.append(self._plane.submit(job, allowed))
            while under_way:
                responses.append(under_way.popleft().result())
        except BaseException:
            for future in under_way:
                future.cancel()
            wait(under_way)
            raise
        return responses
