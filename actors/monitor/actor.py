"""The Ray shell of a monitor: one actor per table, and how its dispatcher reaches decoders and writers."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from actors.block import BlockId
from actors.errors import DecodeAborted, DecodeFailed, NotAttached, SpoolError, StaleOwner
from actors.monitor.kinetica import KineticaTable
from actors.monitor.letters import DeadLetter
from actors.monitor.monitor import Monitor
from actors.monitor.pool import DecoderPool
from actors.monitor.replicator import Parcel, PartnerLost
from actors.monitor.settings import MonitorSettings, Predecessor
from actors.monitor.source import Following, Received
from actors.monitor.standby import Standby
from actors.monitor.transport import DecoderFailed, Task
from actors.names import NAMESPACE, decoder_name, writer_name
from actors.ray_state import actor_info

log = logging.getLogger(__name__)

#: Seconds between questions whether Ray takes this process for dead.
ALIVE_INTERVAL = 1.0

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
    What they change here is put into a queue, and done at the next call.
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
    ) -> None:
        self._catch_up()
        writer = self._writer(sink)
        if writer is None:
            done(NotAttached(f"the writer of {sink} is not running"))
            return
        decoding = self._decode(task)
        if decoding is None:
            done(DecoderFailed("no decoder is running", blame=False))
            return
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
    """The standby that has this name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    def begin(self, term: int, following: Following) -> None:
        self._handle = _find(self._name)
        if self._handle is None:
            raise PartnerLost("it is not running")
        self._wait(self._handle.begin.remote(term, following))

    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        missed: list[Received] = self._wait(self._handle.replicate.remote(term, parcel))
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
        ray.kill(self._handle)


@ray.remote(concurrency_groups={"control": 4, "copying": 1, "reconcile": 1})
class MonitorActor:
    """See :class:`Monitor`, and :class:`Standby` for one that has a partner.

    All work is on threads of the monitor; every method here returns soon.
    """

    def __init__(self, settings: MonitorSettings, incarnation: int, digest: str) -> None:
        self._settings = settings
        self._incarnation = incarnation
        self._digest = digest
        self._lock = threading.Lock()
        self._transport: RayTransport | None = None
        self._monitor: Monitor | None = None
        self._standby: Standby | None = None
        # Finding an actor loads the module of its class, a second or two on a busy machine: not while rows wait.
        import actors.codec.actor
        import actors.writer.actor  # noqa: F401

    @ray.method(concurrency_group="control")
    def start(self, decoders: int, intake: bool = True, predecessor: Predecessor | None = None) -> None:
        """See :meth:`Monitor.start`. On a running monitor it only sets the pool."""
        with self._lock:
            if self._monitor is None:
                drains = self._settings.drain.host if self._settings.drain else None
                self._transport = RayTransport(self._settings.pipeline, self._incarnation, decoders, drains)
                self._monitor = Monitor(self._settings, self._transport)
                self._monitor.start(intake, predecessor)
                threading.Thread(target=self._end_when_dead, name="alive", daemon=True).start()
            elif self._transport is not None:
                self._transport.set_decoders(decoders)

    def _end_when_dead(self) -> None:
        """End this process when Ray takes it for dead.

        It was stopped, or its host out of reach, for so long that the table has another monitor. Writers would refuse
        what it sends, but what it sends does not even reach them: Ray gives nothing on that a dead node owns.
        """
        me = ray.get_runtime_context().get_actor_id()
        while self._monitor is not None:
            time.sleep(ALIVE_INTERVAL)
            with contextlib.suppress(Exception):  # out of reach: nobody knows better
                if actor_info(me).get("State") == "DEAD":
                    log.error("%s: taken for dead; ending", self._settings.table)
                    self._monitor.finish_intake()  # and no more: what goes through Ray may hang
                    os._exit(1)

    @ray.method(concurrency_group="control")
    def stand_by(self, decoders: int) -> None:
        """Begin as a standby. On a running monitor it only sets the pool."""
        with self._lock:
            if self._transport is not None:
                self._transport.set_decoders(decoders)
            elif self._standby is None:
                self._standby = Standby(self._settings, KineticaTable(self._settings))

    @ray.method(concurrency_group="control")
    def promote(self, incarnation: int, decoders: int, intake: bool, partner: str) -> None:
        """Become the table's monitor, whose standby is the actor `partner`. On a running monitor it does nothing."""
        with self._lock:
            if self._monitor is not None:
                return
            assert self._standby is not None
            self._incarnation = incarnation
            source = self._standby.take_over(incarnation)
            self._transport = RayTransport(self._settings.pipeline, incarnation, decoders)
            monitor = Monitor(self._settings, self._transport)
            monitor.pair(source, RayPartner(partner), incarnation)
            monitor.start(intake)
            self._monitor = monitor

    @ray.method(concurrency_group="copying")
    def begin(self, term: int, following: Following) -> None:
        """See :meth:`Standby.begin`."""
        self._standing_by.begin(term, following)

    @ray.method(concurrency_group="copying")
    def replicate(self, term: int, parcel: Parcel) -> list[Received]:
        """See :meth:`Standby.replicate`."""
        return self._standing_by.replicate(term, parcel)

    @property
    def _standing_by(self) -> Standby:
        if self._standby is None:
            raise NotAttached("the standby has only begun to start")
        return self._standby

    @ray.method(concurrency_group="control")
    def set_decoders(self, count: int) -> int:
        """Use decoders 0 to `count` - 1. Returns how many blocks are still being decoded by others."""
        with self._lock:
            return self._transport.set_decoders(count) if self._transport is not None else 0

    @ray.method(concurrency_group="control")
    def status(self) -> dict[str, Any]:
        identity = {
            "pid": os.getpid(),
            "digest": self._digest,
            "incarnation": self._incarnation,
            "resident_bytes": psutil.Process().memory_info().rss,
        }
        if self._monitor is not None:
            return {**identity, **self._monitor.status()}
        if self._standby is not None:
            return {**identity, **self._standby.status()}
        return {**identity, "state": "starting"}

    @ray.method(concurrency_group="control")
    def drain(self) -> dict[str, Any]:
        """Stop receiving; says whether it still does, how many records are not delivered, and whether any will be."""
        if self._monitor is None:
            return {"receiving": True, "pending": 0, "stuck": False}  # not known yet
        monitor = self._monitor
        monitor.stop_intake()
        return {"receiving": monitor.receiving, "pending": monitor.pending, "stuck": monitor.stuck}

    @ray.method(concurrency_group="control")
    def resume(self, sinks: list[str], skip: bool, thaw: bool) -> list[tuple[str, str]]:
        """See :meth:`Dispatcher.resume`; with `thaw`, a table that an alteration froze goes on too."""
        monitor = self._ready
        thawed = [(self._settings.table, "all its sinks")] if thaw and monitor.thaw() else []
        return monitor.dispatcher.resume(sinks, skip) + thawed

    @ray.method(concurrency_group="control")
    def rewind(self, sink: str, time: int) -> dict[str, int]:
        """Feed -> records that `sink` gets again; see :meth:`Dispatcher.rewind`."""
        return {feed: each.records for feed, each in self._ready.dispatcher.rewind(sink, time).items()}

    @ray.method(concurrency_group="control")
    def dead_letters(self, limit: int) -> tuple[dict[str, int], list[DeadLetter]]:
        """See :meth:`DeadLetters.list`."""
        return self._ready.spool.letters.list(limit)

    @ray.method(concurrency_group="control")
    def dead_letter(self, record: BlockId) -> DeadLetter | None:
        """See :meth:`DeadLetters.get`."""
        return self._ready.spool.letters.get(record)

    @ray.method(concurrency_group="reconcile")  # which takes minutes
    def reconcile(self, timeout: float) -> None:
        """See :meth:`Monitor.reconcile`."""
        self._ready.reconcile(timeout)

    @ray.method(concurrency_group="control")
    def conservation(self) -> dict[str, Any]:
        """See :meth:`Monitor.conservation`."""
        return self._ready.conservation()

    @ray.method(concurrency_group="control")
    def replay(self, records: list[BlockId] | None) -> dict[str, tuple[int, int]]:
        """See :meth:`Dispatcher.replay`."""
        return self._ready.dispatcher.replay(records)

    @ray.method(concurrency_group="control")
    def replayed(self, runs: dict[str, int]) -> dict[str, int]:
        """State -> how many dead letters of these runs, feed -> run, are in it."""
        outcome: Counter[str] = Counter()
        for feed, run in runs.items():
            outcome.update(self._ready.spool.letters.outcome(feed, run))
        return dict(outcome)

    @property
    def _ready(self) -> Monitor:
        if self._monitor is None:
            what = "is the standby" if self._standby is not None else "has only begun to start; try again"
            raise SpoolError(f"the monitor {what}")
        return self._monitor

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Stop receiving and delivering; what is left stays in the spool."""
        if self._monitor is not None:
            self._monitor.stop()
        elif self._standby is not None:
            self._standby.close()
