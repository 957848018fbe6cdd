"""How monitors reach the actors that they work with: writers, decoders, and the standby of a table."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from actors.block import BlockId
from actors.errors import DecodeAborted, DecodeFailed, NotAttached, StaleOwner
from actors.monitor.pool import DecoderPool
from actors.monitor.replicator import Parcel, PartnerLost
from actors.monitor.source import Following, Received
from actors.monitor.transport import DecoderFailed, Task
from actors.names import NAMESPACE, decoder_name, writer_name
from actors.ray_state import actor_info

#: Seconds allowed to a standby to take a parcel. Meanwhile nothing is dispatched, so it is not long.
PARCEL_TIMEOUT = 5.0


@dataclass(slots=True)
class _Decoding:
    """A block being decoded for one or more sinks."""

    ref: Any
    number: int
    handle: Any
    users: int = 0


class RayTransport:
    """Chains decoding and writing as one line of futures: ``writer.write(block, previous, decoder.decode(block))``.

    Called by the dispatcher's thread; answers come on Ray's. Actors are found by name, again after each loss.

    Answers must not wait for a lock: looking for an actor while holding it waits for the very thread that brings them.
    What they change here is put into a queue, and done at the next call, :meth:`tidy` at the latest.
    """

    def __init__(self, pipeline: str, incarnation: int, decoders: int, drains: str | None = None) -> None:
        self._pipeline = pipeline
        # A drainer's blocks are an order of their own in a writer, beside that of the monitor elsewhere.
        self._suffix = f"!drain-{drains}" if drains else ""
        self._incarnation = incarnation
        self._lock = threading.Lock()
        self._answered: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._writers: dict[str, Any] = {}
        self._decoding: dict[tuple[BlockId, bool, bool], _Decoding] = {}
        self._pool = DecoderPool(lambda number: decoder_name(pipeline, number), _find_alive)
        self._pool.resize(decoders)

    def set_decoders(self, count: int) -> int:
        """Use decoders 0 to `count` - 1. Returns how many blocks are still being decoded by others."""
        with self._lock:
            self._pool.resize(count)
            others = [decoding.ref for decoding in self._decoding.values() if decoding.number >= count]
        if not others:
            return 0
        return len(ray.wait(others, num_returns=len(others), timeout=0, fetch_local=False)[1])

    def attach(self, sink: str, order: str, session: int, done: Callable[[Any], None]) -> None:
        self._catch_up()
        writer = self._writer(sink)
        if writer is None:
            done(NotAttached(f"the writer of {sink} is not running"))
            return
        call = writer.attach.remote(order + self._suffix, (self._incarnation, session))
        call.future().add_done_callback(lambda future: done(self._outcome(future, sink)))

    def write(
        self, sink: str, task: Task, session: int, previous: BlockId | None, done: Callable[[Any], None]
    ) -> str | None:
        self._catch_up()
        writer = self._writer(sink)
        if writer is None:
            done(NotAttached(f"the writer of {sink} is not running"))
            return None
        decoding = self._decode(task)
        if decoding is None:
            done(DecoderFailed("no decoder is running", blame=False))
            return None
        block, before = self._ordered(task.id), previous and self._ordered(previous)
        call = writer.write.remote((self._incarnation, session), block, before, decoding.ref)

        def finished(future: Future[Any]) -> None:
            outcome = self._outcome(future, sink)
            if isinstance(outcome, DecoderFailed):
                died = isinstance(outcome.__cause__, RayActorError)
                outcome.death = decoding.handle if died else decoding.ref.hex()
            self._answered.put(lambda: self._finished(_key(task), decoding, outcome))
            done(outcome)

        call.future().add_done_callback(finished)
        return f"decoder/{decoding.number}"

    def tidy(self) -> None:
        self._catch_up()  # or the last decoded blocks stay in the object store

    def _ordered(self, block: BlockId) -> BlockId:
        return block._replace(feed=block.feed + self._suffix)

    def _catch_up(self) -> None:
        """Do what the answers so far left to do."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._answered.get_nowait()()

    def _finished(self, key: tuple[BlockId, bool, bool], decoding: _Decoding, outcome: Any) -> None:
        failed = isinstance(outcome, (DecoderFailed, DecodeAborted))
        with self._lock:
            decoding.users -= 1
            # A failed decoding must not be handed to another sink; a finished one is not needed any more.
            if self._decoding.get(key) is decoding and (failed or not decoding.users):
                del self._decoding[key]
            if not decoding.users:
                self._pool.done(decoding.number)
            if failed and isinstance(outcome.__cause__, RayActorError):
                dead = isinstance(outcome.__cause__, ActorDiedError)
                self._pool.lost(decoding.number, decoding.handle, dead=dead, now=time.monotonic())

    def _decode(self, task: Task) -> _Decoding | None:
        """Decode the block of `task`, once for all sinks that want it at about the same time."""
        key = _key(task)
        with self._lock:
            decoding = self._decoding.get(key)
            if decoding is None:
                taken = self._pool.take(time.monotonic())
                if taken is None:
                    return None
                number, handle = taken
                decode = handle.decode_isolated if task.isolated else handle.decode
                ref = decode.remote(task.block, task.strict)
                decoding = self._decoding[key] = _Decoding(ref, number, handle)
            decoding.users += 1
            return decoding

    def _writer(self, sink: str) -> Any:
        if sink not in self._writers:
            handle = _find(writer_name(self._pipeline, sink))
            if handle is None:
                return None
            self._writers[sink] = handle
        return self._writers[sink]

    def _outcome(self, future: Future[Any], sink: str) -> Any:
        """The result, or the exception as the dispatcher knows it.

        A dead decoder shows itself as a task error (the writer's call could not get its argument), a dead writer as
        a plain actor error.
        """
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, RayTaskError):
            cause = getattr(error, "cause", error)
            if isinstance(cause, (RayActorError, DecodeFailed)):
                failure = DecoderFailed(_line(cause), blame=not isinstance(cause, ActorUnavailableError))
                failure.__cause__ = cause
                return failure
            return cause
        if isinstance(error, RayActorError):
            self._answered.put(lambda: self._writers.pop(sink, None))
            return NotAttached(f"the writer of {sink} died")
        # Lost objects and the like: the decoded block is gone, the block is not.
        return DecoderFailed(_line(error), blame=False)


def _key(task: Task) -> tuple[BlockId, bool, bool]:
    return task.id, task.strict, task.isolated


def _find(name: str) -> Any:
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError:
        return None


def _find_alive(name: str) -> Any:
    """An actor that waits for a node is found too, and whatever it is sent waits with it."""
    handle = _find(name)
    if handle is not None and actor_info(handle._actor_id.hex()).get("State") != "ALIVE":
        return None
    return handle


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


class RayPartner:
    """The standby of `table`, which the actor of this name is."""

    def __init__(self, name: str, table: str) -> None:
        self._name = name
        self._table = table
        self._handle: Any = None

    def begin(self, term: int, following: Following) -> None:
        self._handle = _find(self._name)
        if self._handle is None:
            raise PartnerLost("it is not running")
        self._wait(self._handle.begin.remote(self._table, term, following))

    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        missed: list[Received] = self._wait(self._handle.replicate.remote(self._table, term, parcel))
        return missed

    def _wait(self, call: Any) -> Any:
        try:
            return ray.get(call, timeout=PARCEL_TIMEOUT)
        except GetTimeoutError:
            raise PartnerLost(f"it did not answer within {PARCEL_TIMEOUT:.0f} s") from None
        except RayTaskError as error:
            cause = getattr(error, "cause", error)
            if isinstance(cause, StaleOwner):
                raise cause from None
            raise PartnerLost(_line(cause)) from error
        except RayActorError as error:
            raise PartnerLost("it died") from error

    def kill(self) -> None:
        if not self.replaced():
            ray.kill(self._handle)

    def replaced(self) -> bool:
        # The supervisor has a monitor killed before it promotes another.
        try:
            me = ray.get_runtime_context().get_actor_id()
            return bool(actor_info(me).get("State") != "ALIVE")
        except Exception:  # Ray is out of reach: nobody knows
            return True
