"""What the groups of calls, ``kv``, ``object``, ``stream`` and ``container``, and the flat calls share.

Written once for all kinds of client: what a call returns, `R`, is a :class:`Response` of the blocking client, an
awaitable one of the asyncio client, and None in a batch, which only keeps the call.

What all calls can be given:

* `container` and a path within it; slashes at its ends do not matter, except that an object's path with one at its
  end names a directory.
* `access_key`: instead of the client's.
* `raise_for_status`: which replies raise :class:`~protocols.v3io.errors.HttpResponseError`: None or ``"always"`` for
  those with a status from 300 on, ``"never"``, or a list of the statuses that do not.
* `transport_actions`: None; it is there for its place among the arguments.

All raise at the call: ``TypeError`` and ``ValueError`` for what cannot be sent, ``RuntimeError`` on a closed client;
and while talking to the server a :class:`~protocols.v3io.errors.V3ioError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from protocols.v3io.official.calls import Call
from protocols.v3io.official.dataplane import Dataplane, Job
from protocols.v3io.official.response import Allowed, check_allowed

R = TypeVar("R")


class Model(Generic[R]):
    """A group of calls to `plane`; `run` does, or keeps, what a call comes to."""

    def __init__(self, plane: Dataplane, run: Callable[[Job], R]) -> None:
        self._plane = plane
        self._run = run

    def _do(
        self, call: Call, access_key: str | None, raise_for_status: Allowed, transport_actions: None = None
    ) -> R:
        self._plane.check(access_key, transport_actions)
        own = check_allowed(raise_for_status)
        return self._run(lambda default: self._plane.exchange(call, access_key, own or default))
