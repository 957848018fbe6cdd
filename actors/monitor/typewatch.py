"""Sees to it that no row is decoded under a type that it is not of, also where bytes do not show the difference.

Rows are *held* in the spool until the source, asked after they were received, still gives the type that they are
taken to be of. When it gives another one, the table was altered: a further topic is opened, all of whose rows are of
the new type; where it sets in (``overlap.py``) the rows held until then are divided (``switch.py``), the spool is
rewritten in one transaction, and an event of the feed ``<table>.changes`` tells of it.

:class:`~actors.monitor.asker.TypeAsker` asks; :class:`TypeWatch` acts on the answers, on the receiving thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgpack
import orjson

from actors.batch import Rejected
from actors.block import TICKS_PER_SECOND, Block, BlockId
from actors.codec.exact import FrameError, ReferenceDecoder
from actors.monitor.asker import Answer, TypeAsker
from actors.monitor.grouping import BlockBuilder
from actors.monitor.kinetica import schema_type
from actors.monitor.settings import MonitorSettings
from actors.monitor.source import Described, SourceLost, Stream, TableGone
from actors.monitor.spool import Frozen, Position, Spool
from actors.monitor.switch import Division, describe_change, divide
from protocols.kinetica.types import TableType

log = logging.getLogger(__name__)

#: Seconds without a row after which a change is settled without waiting for the new topic's first one.
QUIET = 2.0

#: Seconds between the first row in doubt and the answer that the table was altered, from which on it may have been
#: altered more than once: rows in between are then of a type that nobody saw, and may be readable under one seen.
LATE = 0.5

#: The reason of a dead letter.
AMBIGUOUS = "ambiguous: received while the table was altered, valid under both types"
UNSEEN = "ambiguous: received while the table was altered, perhaps more than once"


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
        #: Why rows wait, other than for a person.
        self.problem: str | None = None
        self._settings = settings
        self._spool = spool
        self._stream = stream
        self._builder = builder
        self._announce = announce
        self._committed = committed
        self._feed = builder.feed
        self._current = stream.described
        self._pending: tuple[Described, ...] = ()
        self._altered_at = 0.0
        self._row_at = time.monotonic()
        self._dropped = False
        self._keep: list[str] | None = None
        #: Blocks of rows that were read from the table: of their own schema for sure, and of no place in the stream.
        self._recovered: list[BlockId] = []
        self._begin()
        self._asker = TypeAsker(stream, self._current, self._end)

    @property
    def frozen(self) -> str | None:
        """Why rows wait for a person, if they do."""
        frozen = self._spool.frozen(self._feed)
        return frozen.why if frozen else None

    def _begin(self) -> None:
        """Deal with what an earlier stream left behind, then hold what this one brings."""
        seen, keep = self._spool.seen(self._feed)
        if self._settings.contract == "discard_columns":
            self._keep = keep or list(schema_type(seen or self._current.schema).names)
        if seen is not None and _type_id(seen) != self._current.type_id:
            self._settle(Described(_type_id(seen), seen), (self._current,), proven_back=0)
        else:
            self._spool.hold(self._feed, Position(self._builder.epoch, 0))
            self._spool.see(self._feed, self._current.schema, self._keep)
            self._committed((self._feed,))
        self._builder.schema = _with_keep(self._current.schema, self._keep)

    def _end(self) -> Position:
        """Everything before it is in the spool."""
        end = self._spool.end(self._feed)
        return Position(end.epoch, end.next_offset)

    # -- while receiving ----------------------------------------------------------------------------------------

    def received(self) -> None:
        """Rows were received."""
        self._row_at = time.monotonic()

    def accepts(self, described: Described) -> bool:
        """Whether rows of that type may be appended now."""
        return not self._pending and described.type_id == self._current.type_id

    def recovered(self, blocks: Iterable[Block]) -> None:
        """These blocks were read from the table."""
        held = self._spool.held(self._feed)
        self._recovered = [id for id in self._recovered if held is None or id[1:] >= held]
        self._recovered += [block.id for block in blocks]

    def poke(self) -> None:
        """Blocks were committed: ask soon."""
        self._asker.poke()

    def turn(self, idle: bool) -> None:
        """Act on answers; `idle`: nothing waits to be received. Raises :class:`TableGone` when the table is."""
        if self._pending and idle and time.monotonic() >= self._row_at + QUIET:
            self._change(proven_back=0)
        # One alteration after the other: what comes under a topic is not of a type before.
        while self._asker.answers and not self._pending:
            answer = self._asker.answers.popleft()
            self.problem = None
            if isinstance(answer.error, TableGone):
                self._gone(answer.error)
            elif isinstance(answer.error, SourceLost):
                self.problem = (
                    f"rows wait, because the type of the table could not be asked for: {answer.error}"
                )
            elif answer.error is not None:
                raise answer.error
            elif answer.steps:
                self._altered(answer)
            else:
                self._confirmed(answer.asked)

    def _confirmed(self, asked: Position) -> None:
        held = self._spool.held(self._feed)
        if held is not None and asked > held:
            self._spool.hold(self._feed, asked)
            self._committed((self._feed,))

    def _altered(self, answer: Answer) -> None:
        log.warning("%s was altered", self._feed)
        self._stream.follow(answer.topic, answer.steps[-1])
        self._spool.set_topics(self._stream.topics)
        self._pending, self._altered_at, self._row_at = answer.steps, answer.at, time.monotonic()

    def switched(self, back: int) -> None:
        """The new topic has set in; the last `back` rows received before belong to it."""
        self._spool.set_topics(self._stream.topics)
        if self._pending:
            self._change(back)

    def _change(self, proven_back: int) -> None:
        """Divide what is held between the types."""
        if block := self._builder.flush():
            self._spool.append([block])
        steps, self._pending = self._pending, ()
        self._settle(self._current, steps, proven_back)
        self._current = steps[-1]
        self._builder.schema = _with_keep(self._current.schema, self._keep)

    def _gone(self, error: TableGone) -> None:
        self._dropped = True
        news = self._news({"event": "table_dropped", "table": self._settings.table, "problem": str(error)})
        self._spool.append([news])
        self._committed((self._announce.feed,))
        raise error

    def close(self) -> None:
        """The stream ends: release what can still be confirmed. What can't stays held until the next one opens.

        Of a table that was dropped, what is held was received under the type known last.
        """
        self._asker.stop()
        asked, known = self._end(), (self._current, *self._pending)[-1]
        try:
            last = known if self._dropped else self._stream.describe()
        except SourceLost as error:
            log.info("%s: the last rows stay held: %s", self._feed, error)
            last = None
        if last is not None and last.type_id != known.type_id:
            self._pending, self._altered_at = (*self._pending, last), time.time()
        if self._pending:
            self._change(proven_back=0)
        if last is not None:
            self._confirmed(asked)

    # -- a change of type ---------------------------------------------------------------------------------------

    def _settle(self, old: Described, steps: Sequence[Described], proven_back: int) -> None:
        """Rewrite the held blocks by where the type changed, and tell of it.

        The rows were received as `old`; then the table took on the types in `steps`, one after the other. Of the last
        of them are, for sure, the last `proven_back` rows.
        """
        new = steps[-1]
        held = self._spool.held_blocks(self._feed)
        sure = [block for block in held if block.id in self._recovered]
        rows = [
            (block, i, frame)
            for block in held
            if block.id not in self._recovered
            for i, frame in enumerate(msgpack.unpackb(block.payload))
        ]
        frames = [frame for _, _, frame in rows]
        types = [schema_type(each.schema) for each in (old, *steps)]
        late = bool(rows) and self._altered_at - rows[0][0].time / TICKS_PER_SECOND > LATE
        division = divide(frames, types, len(frames) - proven_back, unseen=late)
        reread = self._reread(frames, division, types, new)
        schemas = [_with_keep(each.schema, self._keep) for each in (old, *steps)]
        ambiguous = set(division.ambiguous)
        side = division.newest if self._settings.ambiguous == "new" else division.oldest
        labelled: list[tuple[Block, int, bytes, str]] = []
        rejects: list[tuple[Block, Rejected]] = []
        for place, (block, i, frame) in enumerate(rows):
            if place in reread:
                labelled.append((block, i, reread[place], schemas[-1]))
            elif place in ambiguous and self._settings.ambiguous == "reject":
                rejects.append((block, Rejected(block.offset + i, UNSEEN if late else AMBIGUOUS, frame)))
            else:
                labelled.append((block, i, frame, schemas[side[place]]))
        at = [Position(block.epoch, block.offset + i) for block, i, _ in rows]
        at.append(max(self._end(), Position(self._builder.epoch, self._builder.next_offset)))
        hold = at[division.first_new]
        frozen = None
        if self._settings.contract == "freeze":
            newer = (Position(b.epoch, b.offset + i) for b, i, _, schema in labelled if schema != schemas[0])
            why = f"{self._settings.table} was altered; `tablecast resume` goes on with the new columns"
            frozen = Frozen(next(newer, hold), why)
        event = {
            "event": "table_altered",
            "table": self._settings.table,
            **describe_change(types[0], types[-1]),
            "old_type_id": old.type_id,
            "new_type_id": new.type_id,
            "ambiguous": len(ambiguous),
            "reread": len(reread),
            "ambiguous_rejected": len(rejects),
            "first_ambiguous": _origin(*rows[min(ambiguous)][:2]) if ambiguous else None,
        }
        seen = (new.schema, self._keep)
        blocks = sorted([*_reblock(labelled, hold), *sure], key=lambda block: block.id)
        self._spool.settle(self._feed, blocks, rejects, hold, frozen, seen, self._news(event))
        self._committed((self._feed, self._announce.feed))
        log.warning("%s altered: %s", self._feed, event)

    def _reread(
        self, frames: Sequence[bytes], division: Division, types: Sequence[TableType], now: Described
    ) -> dict[int, bytes]:
        """Place -> the row as the table has it now, for ambiguous rows that the increasing column tells apart."""
        column = self._settings.increasing_column
        if column is None or any(column not in each.names for each in types):
            return {}
        readers = [(ReferenceDecoder(each.columns), each.names.index(column)) for each in types]
        places: dict[Any, list[int]] = {}
        for place in division.ambiguous:
            values = set()
            for (reader, index), possible in zip(readers, division.possible[:, place], strict=True):
                if possible:
                    with contextlib.suppress(FrameError):  # of a type that nobody saw
                        values.add(reader.read(frames[place])[index])
            # Where all readings agree the value is certain; elsewhere the row stays ambiguous.
            if len(values) == 1:
                places.setdefault(values.pop(), []).append(place)
        places.pop(None, None)
        if not places:
            return {}
        try:
            found = self._stream.reread(now, column, list(places))
        except SourceLost as error:
            log.warning("%s: ambiguous rows could not be read again: %s", self._feed, error)
            return {}
        times = Counter(value for value, _ in found)
        # A value that is there twice identifies no row.
        return {
            places[value][0]: row
            for value, row in found
            if times[value] == 1 and len(places.get(value, ())) == 1
        }

    def _news(self, event: dict[str, Any]) -> Block:
        """A block of the feed of changes with one event."""
        full = self._announce.add([orjson.dumps(event)], time.time())
        block = full[0] if full else self._announce.flush()
        assert block is not None
        return block


def _reblock(rows: Sequence[tuple[Block, int, bytes, str]], cut: Position) -> list[Block]:
    """Runs of consecutive records of one block and one schema, none across `cut`, as blocks of their own."""
    runs: list[list[tuple[Block, int, bytes, str]]] = []
    for row in rows:
        block, i, _, schema = row
        before = runs[-1][-1] if runs else None
        follows = before is not None and before[0] is block and (before[1] + 1, before[3]) == (i, schema)
        if follows and (block.epoch, block.offset + i) != cut:
            runs[-1].append(row)
        else:
            runs.append([row])
    blocks = []
    for run in runs:
        block, first, _, schema = run[0]
        payload = msgpack.packb([frame for _, _, frame, _ in run])
        offset, at = block.offset + first, block.time + first
        blocks.append(Block(block.feed, block.epoch, offset, len(run), at, block.format, schema, payload))
    return blocks


def _origin(block: Block, i: int) -> str:
    return f"{block.feed}/{block.epoch}/{block.offset + i}"


def _type_id(schema: str) -> str:
    return str(orjson.loads(schema).get("type_id", ""))


def _with_keep(schema: str, keep: Sequence[str] | None) -> str:
    """The schema, with the columns to keep where others are to be discarded."""
    if keep is None:
        return schema
    return orjson.dumps({**orjson.loads(schema), "keep": list(keep)}, option=orjson.OPT_SORT_KEYS).decode()
