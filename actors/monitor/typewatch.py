"""Sees to it that no row is decoded under a type that it is not of, also where bytes do not show the difference.

Rows are *held* in the spool until the source, asked after they were received, still gives the type that they are
taken to be of. When it gives another one, the table was altered: a further topic is opened, all of whose rows are of
the new type; where it sets in the rows held until then are divided (``switch.py``), the spool is rewritten in one
transaction, and an event of the feed ``<table>.changes`` tells of it.

:class:`TypeAsker` asks on a thread of its own, because the receiving thread must not wait for an answer;
:class:`TypeWatch` acts on the answers, on the receiving thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson

from actors.batch import Rejected
from actors.block import Block
from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.grouping import BlockBuilder
from actors.monitor.kinetica import schema_type
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Described, SourceLost, Stream, TableGone
from actors.monitor.spool import Held, Position, Spool
from actors.monitor.switch import Switch, describe_change, find_switch
from protocols.kinetica.types import TableType

log = logging.getLogger(__name__)

#: Seconds between two questions at most, and at least while rows arrive.
POLL_INTERVAL = 1.0
MIN_INTERVAL = 0.1

#: Seconds without a row after which a change is settled without waiting for the new topic's first one.
QUIET = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the source said of its type when asked after everything before `asked` had been received."""

    asked: Position
    described: Described | None  # None: the table is gone
    topic: str | None = None  # opened because the type is another
    problem: str = ""


class TypeAsker:
    """Asks a stream for its type, every second and soon after rows have come; never two questions at once."""

    def __init__(self, stream: Stream, known: Described, received: Callable[[], Position]) -> None:
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._stream = stream
        self._known = known
        self._received = received
        self._ask = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="type-asker", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """Rows have come: ask soon."""
        self._ask.set()

    def stop(self) -> None:
        """End, after the question that is under way."""
        self._stop.set()
        self._ask.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._ask.wait(POLL_INTERVAL)
            self._ask.clear()
            if self._stop.is_set():
                return
            asked = self._received()
            try:
                described = self._stream.describe()
                topic = None
                if described.type_id != self._known.type_id:
                    topic = self._stream.renew()
                    self._known = described
                self.answers.put(Answer(asked, described, topic))
            except TableGone as error:
                self.answers.put(Answer(asked, None, problem=str(error)))
            except SourceLost as error:
                # Held rows wait; if the server is gone the subscription will tell.
                log.info("the table's type could not be asked for: %s", error)
            self._stream.wake()
            self._stop.wait(MIN_INTERVAL)


class TypeWatch:
    """The types of one table's rows, for one opened stream. Used by the receiving thread.

    Args:
        builder: of the insert feed, which this watch cuts and changes the schema of.
        announce: builds blocks of the feed ``<table>.changes``.
        committed: tell the dispatcher that blocks of these feeds may be read.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        spool: Spool,
        stream: Stream,
        builder: BlockBuilder,
        announce: BlockBuilder,
        committed: Callable[[Iterable[str]], None],
    ) -> None:
        assert stream.described is not None
        self._settings = settings
        self._spool = spool
        self._stream = stream
        self._builder = builder
        self._announce = announce
        self._committed = committed
        self._feed = builder.feed
        self._current = stream.described
        self._pending: Described | None = None
        #: When a row came last, by the monotonic clock.
        self.row_at = time.monotonic()
        self._dropped = False
        self._begin()
        self._asker = TypeAsker(stream, self._current, self._end)

    @property
    def frozen(self) -> str | None:
        """Why rows wait for a person, if they do."""
        held = self._spool.held(self._feed)
        return held.frozen if held else None

    def _begin(self) -> None:
        """Deal with what an earlier stream left behind, then hold what this one brings."""
        seen, keep = self._spool.seen(self._feed)
        if keep is None and self._settings.contract == "discard_columns":
            keep = list(schema_type(seen or self._current.schema).names)
        self._keep = keep if self._settings.contract == "discard_columns" else None
        left = self._spool.held_blocks(self._feed)
        before = left[0].schema if left else seen
        if before is not None and _type_id(before) != self._current.type_id:
            self._settle(left, Described(_type_id(before), before), self._current, proven_new=None)
        elif self.frozen is None:
            self._spool.hold(self._feed, Position(self._builder.epoch, 0))
            self._committed((self._feed,))
        self._remember()

    def _remember(self) -> None:
        self._builder.schema = _with_keep(self._current.schema, self._keep)
        self._spool.see(self._feed, self._current.schema, self._keep)

    def _end(self) -> Position:
        """Everything before it is in the spool."""
        end = self._spool.end(self._feed)
        return Position(end.epoch, end.next_offset)

    # -- while receiving ----------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Blocks were committed: ask soon."""
        self._asker.poke()

    def turn(self) -> None:
        """Act on answers. Raises :class:`TableGone` when the table is."""
        while not self._asker.answers.empty():
            answer = self._asker.answers.get()
            if answer.described is None:
                self._gone(answer.problem)
            elif answer.topic is not None:
                self._altered(answer.described, answer.topic)
            elif self._pending is None:
                self._confirmed(answer.asked)
        if self._pending is not None and time.monotonic() >= self.row_at + QUIET:
            self._change(proven_back=0)

    def _confirmed(self, asked: Position) -> None:
        held = self._spool.held(self._feed)
        if held is not None and held.frozen is None and asked > held.at:
            self._spool.hold(self._feed, asked)
            self._committed((self._feed,))

    def _altered(self, described: Described, topic: str) -> None:
        log.warning("%s was altered", self._feed)
        if self._pending is not None:
            self._change(proven_back=0)
        self._stream.follow(topic, described)
        self._spool.set_topics(self._stream.topics)
        self._pending, self.row_at = described, time.monotonic()

    def switched(self, back: int) -> None:
        """The new topic has set in; the last `back` rows received before belong to it."""
        self._spool.set_topics(self._stream.topics)
        if self._pending is not None:
            self._change(back)

    def _change(self, proven_back: int) -> None:
        """Divide what is held between the types."""
        assert self._pending is not None
        if block := self._builder.flush():
            self._spool.append([block])
        blocks = self._spool.held_blocks(self._feed)
        new, self._pending = self._pending, None
        proven = (
            sum(block.count for block in blocks if _type_id(block.schema) == self._current.type_id)
            - proven_back
        )
        self._settle(blocks, self._current, new, proven)
        self._current = new
        self._remember()

    def _gone(self, problem: str) -> None:
        self._dropped = True
        self._tell({"event": "table_dropped", "table": self._settings.table, "problem": problem})
        raise TableGone(problem)

    def close(self) -> None:
        """The stream ends: release what can still be confirmed. What can't stays held until the next one opens.

        Of a table that was dropped, what is held was received under the type known last.
        """
        self._asker.stop()
        if self._pending is not None:
            self._change(proven_back=0)
        asked = self._end()
        try:
            if self._dropped or self._stream.describe().type_id == self._current.type_id:
                self._confirmed(asked)
        except SourceLost as error:
            log.info("%s: the last rows stay held: %s", self._feed, error)

    # -- a change of type ---------------------------------------------------------------------------------------

    def _settle(
        self, blocks: Sequence[Block], old: Described, new: Described, proven_new: int | None
    ) -> None:
        """Rewrite the held `blocks` by where the type changed, and tell of it."""
        # A frozen feed may hold rows of types before: they were divided when those changed.
        divided = [block for block in blocks if _type_id(block.schema) != old.type_id]
        rows = [
            (block, i, frame)
            for block in blocks[len(divided) :]
            for i, frame in enumerate(msgpack.unpackb(block.payload))
        ]
        frames = [frame for _, _, frame in rows]
        old_type, new_type = schema_type(old.schema), schema_type(new.schema)
        switch = find_switch(frames, old_type, new_type, proven_new)
        doubtful = range(switch.first_ambiguous, switch.first_new)
        reread = self._reread(frames, doubtful, old_type, new_type)
        new_schema = _with_keep(new.schema, self._keep)
        labelled: list[tuple[Block, int, bytes, str]] = []
        rejects: list[tuple[Block, Rejected]] = []
        for place, (block, i, frame) in enumerate(rows):
            if place in reread:
                labelled.append((block, i, reread[place], new_schema))
            elif place not in doubtful:
                labelled.append((block, i, frame, block.schema if place < doubtful.start else new_schema))
            elif self._settings.ambiguous == "reject":
                reason = "ambiguous: received while the table was altered, valid under both types"
                rejects.append((block, Rejected(block.offset + i, reason, frame)))
            else:
                labelled.append(
                    (block, i, frame, block.schema if self._settings.ambiguous == "old" else new_schema)
                )
        event = {
            "event": "table_altered",
            "table": self._settings.table,
            **describe_change(old_type, new_type),
            "old_type_id": old.type_id,
            "new_type_id": new.type_id,
            "ambiguous": len(doubtful),
            "reread": len(reread),
            "ambiguous_rejected": len(rejects),
            "first_ambiguous": _origin(rows, doubtful.start) if doubtful else None,
        }
        held = self._held_after(rows, switch)
        news = self._news(event)
        if blocks:
            self._spool.settle(self._feed, [*divided, *_reblock(labelled)], rejects, held, news)
        else:
            self._spool.append([news])
            self._spool.hold(self._feed, *held)
        self._committed((self._feed, self._announce.feed))
        log.warning("%s altered: %s", self._feed, event)

    def _held_after(self, rows: Sequence[tuple[Block, int, bytes]], switch: Switch) -> Held:
        """From where on rows wait: for the new type to be confirmed, as it may have changed again, or for a person."""
        held = self._spool.held(self._feed)
        if held is not None and held.frozen is not None:
            return held
        frozen = self._settings.contract == "freeze"
        first = switch.first_ambiguous if frozen else switch.first_new
        if first < len(rows):
            block, i, _ = rows[first]
            at = Position(block.epoch, block.offset + i)
        else:
            at = max(self._end(), Position(self._builder.epoch, self._builder.next_offset))
        why = f"{self._settings.table} was altered; `tablecast resume` goes on with the new columns"
        return Held(at, why if frozen else None)

    def _reread(
        self, frames: Sequence[bytes], doubtful: range, old: TableType, new: TableType
    ) -> dict[int, bytes]:
        """Place -> the row as the table has it now, for doubtful rows that can be told by the increasing column."""
        column = self._settings.increasing_column
        if column is None or not doubtful or column not in old.names or column not in new.names:
            return {}
        readers = [ReferenceDecoder(each.columns) for each in (old, new)]
        columns = [each.names.index(column) for each in (old, new)]
        values: dict[Any, int] = {}
        for place in doubtful:
            try:
                was, now = (reader.read(frames[place])[i] for reader, i in zip(readers, columns, strict=True))
            except FrameError:  # not a row of both types: a reject, whatever comes of it
                continue
            # Where both readings agree the value is certain; elsewhere the row stays ambiguous.
            if was == now and was not in values:
                values[was] = place
        try:
            found = self._stream.reread(column, list(values))
        except SourceLost as error:
            log.warning("%s: ambiguous rows could not be read again: %s", self._feed, error)
            return {}
        return {values[value]: row for value, row in found if value in values}

    def _tell(self, event: dict[str, Any]) -> None:
        self._spool.append([self._news(event)])
        self._committed((self._announce.feed,))

    def _news(self, event: dict[str, Any]) -> Block:
        """A block of the feed of changes with one event."""
        full = self._announce.add([orjson.dumps(event)], time.time())
        block = full[0] if full else self._announce.flush()
        assert block is not None
        return block


def resume(spool: Spool, feed: str) -> bool:
    """Let a frozen feed go on. Returns whether it was frozen."""
    held = spool.held(feed)
    if held is None or held.frozen is None:
        return False
    spool.hold(feed, held.at)
    return True


def _reblock(rows: Sequence[tuple[Block, int, bytes, str]]) -> list[Block]:
    """Runs of consecutive records of one block and one schema, as blocks of their own."""
    blocks: list[Block] = []
    run: list[bytes] = []
    for place, (block, i, frame, schema) in enumerate(rows):
        run.append(frame)
        following = rows[place + 1] if place + 1 < len(rows) else None
        if following is None or following[0] is not block or following[1] != i + 1 or following[3] != schema:
            first = i + 1 - len(run)
            payload = msgpack.packb(run)
            offset, at = block.offset + first, block.time + first
            blocks.append(Block(block.feed, block.epoch, offset, len(run), at, block.format, schema, payload))
            run = []
    return blocks


def _origin(rows: Sequence[tuple[Block, int, bytes]], place: int) -> str:
    block, i, _ = rows[place]
    return f"{block.feed}/{block.epoch}/{block.offset + i}"


def _type_id(schema: str) -> str:
    return str(orjson.loads(schema).get("type_id", ""))


def _with_keep(schema: str, keep: Sequence[str] | None) -> str:
    """The schema, with the columns to keep where others are to be discarded."""
    if keep is None:
        return schema
    return orjson.dumps({**orjson.loads(schema), "keep": list(keep)}, option=orjson.OPT_SORT_KEYS).decode()
