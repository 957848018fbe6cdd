"""A lane against a writer that fails in every way: nothing skipped, nothing out of order, nothing past the window."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.backoff import Backoff
from actors.block import Block, BlockId
from actors.monitor.lane import MAX_DECODE_ATTEMPTS, WINDOW_BLOCKS, Abort, Lane, LaneState, Resend
from actors.monitor.spool import Position

WINDOW = 100


def block(offset: int, count: int = 1, size: int = 10, epoch: int = 1) -> Block:
    return Block("t", epoch, offset, count, offset, "avro", "{}", b"x" * size)


def opened(window: int = WINDOW) -> Lane:
    lane = Lane("t", "a", Position(), window)
    assert lane.attached(lane.attaching(), None) is False
    return lane


def test_blocks_name_their_predecessor_and_acks_move_the_cursor_in_order() -> None:
    lane = opened()
    assert [lane.sent(block(n)) for n in range(3)] == [None, block(0).id, block(1).id]
    assert lane.acked(lane.session, block(2).id) is False
    assert lane.acked(lane.session, block(1).id) is False
    assert lane.cursor == Position()
    assert lane.acked(lane.session, block(0).id) is True
    assert lane.cursor == Position(1, 3)
    assert lane.in_flight == 0
    assert lane.acked(lane.session, block(0).id) is False


def test_the_window_counts_bytes_and_blocks_but_lets_one_block_through() -> None:
    lane = opened(window=10)
    assert lane.wants_block()
    lane.sent(block(0, size=1000))
    assert not lane.wants_block()
    lane.acked(lane.session, block(0).id)
    for n in range(WINDOW_BLOCKS):
        assert lane.wants_block()
        lane.sent(block(1 + n, size=0))
    assert not lane.wants_block()


def test_a_failed_writer_is_left_alone_for_longer_each_time_until_it_acknowledges() -> None:
    lane = Lane("t", "a", Position(), backoff=Backoff(1.0, 60.0))
    waits = []
    for _ in range(8):
        assert lane.wants_attach(1000.0)
        assert lane.writer_failed(lane.attaching(), "gone", 500.0)
        assert not lane.wants_attach(500.0)
        waits.append(lane.not_before - 500.0)
    assert all(wait / 2 <= min(60.0, 2.0**n) / 2 <= wait for n, wait in enumerate(waits))
    assert lane.problem == "gone"
    lane.attached(lane.attaching(), None)
    assert lane.problem is None
    lane.sent(block(0))
    lane.acked(lane.session, block(0).id)
    lane.writer_failed(lane.session, "gone again", 0.0)
    assert lane.not_before <= 1.0


def test_what_the_writer_made_durable_is_not_sent_again() -> None:
    lane = opened()
    lane.sent(block(0))
    lane.writer_failed(lane.session, "lost", 0.0)
    assert lane.read_position == Position()
    assert lane.attached(lane.attaching(), Position(1, 1)) is True
    assert lane.cursor == lane.read_position == Position(1, 1)
    lane.writer_failed(lane.session, "lost", 0.0)
    assert lane.attached(lane.attaching(), Position(1, 0)) is False
    assert lane.cursor == Position(1, 1)


def test_a_block_that_kills_decoders_parks_the_lane_and_an_empty_pool_does_not() -> None:
    lane = opened()
    lane.sent(block(0))
    lane.sent(block(1))
    session = lane.session
    for _ in range(50):
        assert isinstance(lane.decode_failed(session, block(1).id, "no decoder", blame=False), Resend)
    for _ in range(MAX_DECODE_ATTEMPTS - 1):
        again = lane.decode_failed(session, block(1).id, "died", blame=True)
        assert again is not None
        assert again.previous == block(0).id
    assert lane.decode_failed(session, block(1).id, "died", blame=True) is None
    assert lane.state is LaneState.PARKED
    assert lane.problem == f"block {block(1).id} could not be decoded in 5 attempts: died"


@pytest.mark.parametrize("session", [-1, 1])
def test_answers_of_another_session_change_nothing(session: int) -> None:
    lane = opened()
    lane.sent(block(0))
    other = lane.session + session
    assert not lane.acked(other, block(0).id)
    assert lane.decode_failed(other, block(0).id, "x", True) is None
    assert not lane.writer_failed(other, "x", 0.0)
    assert not lane.attached(other, Position(9, 9))
    assert (lane.state, lane.cursor, lane.in_flight) == (LaneState.OPEN, Position(), 1)


def test_a_parked_lane_stays_parked() -> None:
    lane = opened()
    lane.sent(block(0))
    lane.sent(block(1))
    lane.acked(lane.session, block(0).id)
    session = lane.session
    lane.park("refused")
    assert not lane.acked(session, block(1).id)
    assert not lane.writer_failed(lane.session, "x", 0.0)
    assert not lane.wants_attach(1e9)
    assert not lane.wants_block()
    assert (lane.cursor, lane.problem, lane.in_flight) == (Position(1, 1), "refused", 0)


def test_an_abort_lets_through_what_is_before_it_in_a_new_session() -> None:
    lane = opened()
    for n in range(4):
        lane.sent(block(n))
    lane.acked(lane.session, block(0).id)
    session = lane.session
    assert lane.abort(session, Abort(block(2).id, 2, "bad", 1))
    assert not lane.abort(session, Abort(block(3).id, 3, "bad", 1)), "an answer of the session before"
    assert not lane.acked(session, block(1).id)
    assert lane.wants_attach(0.0)
    lane.attached(lane.attaching(), None)
    assert lane.read_position == Position(1, 1)
    assert lane.wants_block()
    assert lane.may_send(block(1))
    assert lane.sent(block(1)) is None
    assert lane.acked(lane.session, block(1).id)
    assert not lane.may_send(block(2))
    assert not lane.may_send(block(0, epoch=2))
    assert (lane.cursor, lane.state, lane.problem) == (Position(1, 2), LaneState.OPEN, None)
    assert lane.resume()
    assert not lane.resume()
    assert lane.may_send(block(2))
    assert lane.sent(block(2)) == block(1).id


def test_a_resumed_lane_attaches_at_once_and_begins_behind_what_is_acknowledged() -> None:
    lane = Lane("t", "a", Position(), backoff=Backoff(100.0, 100.0))
    lane.attached(lane.attaching(), None)
    lane.sent(block(0))
    lane.acked(lane.session, block(0).id)
    lane.sent(block(1))
    lane.park("refused")
    assert lane.resume()
    assert lane.wants_attach(0.0)
    assert (lane.problem, lane.read_position) == (None, Position(1, 1))


@dataclass(frozen=True)
class Call:
    """A block on its way to the writer."""

    session: int
    block: Block
    previous: BlockId | None


class LaneAgainstWriter(RuleBasedStateMachine):
    """A lane, what its spool holds, and a writer that puts blocks in order as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane("t", "a", Position(), WINDOW, Backoff(rng=random.Random(0)))
        self.now = 0.0
        self.spool: list[Block] = []
        self.delivered = 0  # blocks of the spool that the sink has, always a prefix
        self.attaches: list[int] = []
        self.calls: list[Call] = []
        self.answers: list[tuple[Call, bool]] = []
        self.resends: list[Call] = []
        self.stopped_at: Block | None = None
        self.restart_writer()

    def restart_writer(self) -> None:
        self.session: int | None = None
        self.last: BlockId | None = None
        self.durable: Position | None = None
        self.buffer: dict[BlockId | None, Call] = {}

    def sizes(self) -> int:
        """Payload bytes that the lane has sent in this session and not got past."""
        sent = [b for b in self.spool if self.lane.cursor <= (b.epoch, b.offset) < self.lane.read_position]
        return sum(len(b.payload) for b in sent[:-1])

    # -- what the dispatcher does -------------------------------------------------------------------------------

    @rule(size=st.integers(0, 60), count=st.integers(1, 3), reopened=st.booleans())
    def commit(self, size: int, count: int, reopened: bool) -> None:
        last = self.spool[-1] if self.spool else block(0, 0, 0)
        epoch, offset = (last.epoch + 1, 0) if reopened else (last.epoch, last.end)
        self.spool.append(block(offset, count, size, epoch))

    @rule()
    def pump(self) -> None:
        if self.lane.wants_attach(self.now):
            self.attaches.append(self.lane.attaching())
        while self.lane.wants_block():
            following = [b for b in self.spool if (b.epoch, b.offset) >= self.lane.read_position]
            if not following:
                break
            if not self.lane.may_send(following[0]):
                break
            previous = self.lane.sent(following[0])
            self.calls.append(Call(self.lane.session, following[0], previous))
            assert self.sizes() < WINDOW

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.resends)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        call = self.resends.pop(data.draw(st.integers(0, len(self.resends) - 1)))
        if call.session == self.lane.session:
            self.calls.append(call)

    # -- what the writer does -----------------------------------------------------------------------------------

    @precondition(lambda self: self.attaches)
    @rule(remembers=st.booleans())
    def answer_attach(self, remembers: bool) -> None:
        self.session, self.last = self.attaches.pop(0), None
        self.answers += [(call, False) for call in self.buffer.values()]
        self.buffer = {}
        moved = self.lane.attached(self.session, self.durable if remembers else None)
        assert not moved or self.lane.cursor == self.durable

    @precondition(lambda self: self.attaches)
    @rule()
    def attach_fails(self) -> None:
        self.lane.writer_failed(self.attaches.pop(0), "not running", self.now)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if call.session != self.session:
            self.answers.append((call, False))
            return
        assert call.previous not in self.buffer
        self.buffer[call.previous] = call
        while self.last in self.buffer:
            done = self.buffer.pop(self.last)
            self.deliver(done.block)
            self.last = done.block.id
            self.answers.append((done, True))

    def deliver(self, block: Block) -> None:
        index = self.spool.index(block)
        assert index <= self.delivered, "a block was skipped"
        if self.last is not None:
            assert self.last == self.spool[index - 1].id, "out of order within a session"
        self.delivered = max(self.delivered, index + 1)
        self.durable = Position(block.epoch, block.end)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), blame=st.booleans())
    def decoding_fails(self, data: st.DataObject, blame: bool) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        again = self.lane.decode_failed(call.session, call.block.id, "decoder died", blame)
        if again is not None:
            assert again.previous == call.previous
            self.resends.append(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def record_does_not_decode(self, data: st.DataObject) -> None:
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        block = call.block
        if self.lane.abort(call.session, Abort(block.id, block.offset, "bad", 1)):
            self.stopped_at = block

    @rule()
    def resume(self) -> None:
        if self.lane.resume():
            self.__dict__.pop("parked_at", None)
            self.stopped_at = None

    @rule()
    def writer_dies(self) -> None:
        self.answers += [(call, False) for call in [*self.calls, *self.buffer.values()]]
        self.calls = []
        self.restart_writer()

    # -- answers arrive in any order ----------------------------------------------------------------------------

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call, good = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        if good:
            self.lane.acked(call.session, call.block.id)
        else:
            self.lane.writer_failed(call.session, "not attached", self.now)

    @invariant()
    def the_cursor_is_a_prefix_that_the_sink_has(self) -> None:
        ends = [Position(), *(Position(b.epoch, b.end) for b in self.spool[: self.delivered])]
        assert self.lane.cursor in ends
        assert self.lane.in_flight <= WINDOW_BLOCKS
        if self.stopped_at is not None:
            assert self.delivered <= self.spool.index(self.stopped_at), "past the block that aborted"
        parked = self.lane.state is LaneState.PARKED
        assert getattr(self, "parked_at", self.lane.cursor) == self.lane.cursor
        if parked:
            self.parked_at = self.lane.cursor

    def teardown(self) -> None:
        """Once nothing fails any more, everything arrives."""
        if self.lane.aborted is not None:
            self.lane.resume()
        for _ in range(2 * len(self.spool) + 10):
            self.now += 100.0
            self.pump()
            if self.lane.state is LaneState.OPEN and not self.lane.in_flight:
                break
            while self.resends:
                call = self.resends.pop()
                self.calls += [call] if call.session == self.lane.session else []
            while self.attaches:
                self.session, self.last, self.buffer = self.attaches.pop(), None, {}
                self.lane.attached(self.session, self.durable)
            while self.calls:
                call = self.calls.pop()
                if call.session == self.session:
                    self.buffer[call.previous] = call
                else:
                    self.answers.append((call, False))
            while self.last in self.buffer:
                done = self.buffer.pop(self.last)
                self.deliver(done.block)
                self.last = done.block.id
                self.answers.append((done, True))
            while self.answers:
                call, good = self.answers.pop()
                if good:
                    self.lane.acked(call.session, call.block.id)
                else:
                    self.lane.writer_failed(call.session, "not attached", self.now)
        if self.lane.state is not LaneState.PARKED and self.spool:
            assert self.delivered == len(self.spool)
            assert self.lane.cursor == Position(self.spool[-1].epoch, self.spool[-1].end)
            assert self.lane.in_flight == 0


LaneAgainstWriter.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_lane_against_writer = LaneAgainstWriter.TestCase
