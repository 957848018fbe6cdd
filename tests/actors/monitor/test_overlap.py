"""Going over from one topic to another: never a loss, and told where the new topic begins."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.monitor.overlap import RECENT, Overlap
from actors.monitor.source import Received, Switched

Event = tuple[str, list[bytes]]


def published(operations: list[list[list[bytes]]], cut: int, new_first: bool) -> Iterator[Event]:
    """What a subscriber of both topics gets: the new one from message `cut` on."""
    number = 0
    for messages in operations:
        old = [("old", message) for message in messages]
        new = [("new", message) for i, message in enumerate(messages, number) if i >= cut]
        number += len(messages)
        yield from [*new, *old] if new_first else [*old, *new]


class Run:
    """Feeds an overlap and keeps what it hands out."""

    def __init__(self, recent: list[list[bytes]] | None = None) -> None:
        self.overlap = Overlap(recent or [])
        self.messages: list[list[bytes]] = []
        self.switched: int | None = None
        self.back = 0

    def take(self, out: list[Received | Switched]) -> None:
        for item in out:
            if isinstance(item, Switched):
                assert self.switched is None
                self.switched, self.back = len(self.messages), item.back
            else:
                assert item.kind == "insert"
                self.messages.append(list(item.frames))

    def feed(self, events: Iterator[Event]) -> None:
        for topic, frames in events:
            self.take(self.overlap.new(frames) if topic == "new" else self.overlap.old(frames))

    @property
    def of_new_type(self) -> list[bytes]:
        """The rows that are told to have come under the new topic."""
        assert self.switched is not None
        rows = [frame for message in self.messages for frame in message]
        switched = sum(map(len, self.messages[: self.switched]))
        return rows[switched - self.back :]


def unique(sizes: list[int]) -> list[list[list[bytes]]]:
    """Operations of so many messages, no message like another."""
    numbers = iter(range(10_000))
    return [[[b"%d" % next(numbers)] * (1 + i % 3) for i in range(size)] for size in sizes]


@settings(max_examples=500)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 40), st.booleans(), st.data())
def test_unlike_messages_are_handed_out_once_and_the_cut_is_found(
    sizes: list[int], cut: int, new_first: bool, data: st.DataObject
) -> None:
    operations = unique(sizes)
    everything = [message for operation in operations for message in operation]
    before = data.draw(st.integers(0, min(3, cut, len(everything))))
    run = Run(everything[:before])
    events = published(operations, cut, new_first)
    run.feed(event for event in events if event[0] == "new" or event[1] not in everything[:before])
    if not run.overlap.over:
        run.take(run.overlap.settle(quiet=True))
    assert run.messages == everything[before:]
    if cut < len(everything):
        assert run.overlap.over
        if cut >= before:
            assert run.of_new_type == [frame for message in everything[cut:] for frame in message]
    else:
        assert run.switched is None


@settings(max_examples=500)
@given(st.lists(st.sampled_from([b"x", b"y"]), max_size=30), st.integers(0, 30), st.booleans(), st.booleans())
def test_messages_alike_are_never_lost(
    contents: list[bytes], cut: int, new_first: bool, goes_on: bool
) -> None:
    operations = [[[content]] for content in contents]
    everything = [message for operation in operations for message in operation]
    run = Run()
    run.feed(published(operations, cut, new_first))
    quiet = run.overlap.settle(quiet=not goes_on)
    run.take(quiet)
    rest = [[b"end"], [b"of all"]]
    more = [("old", m) for m in rest], [("new", m) for m in rest]
    if cut < len(contents):
        run.feed(e for pair in zip(*(more[::-1] if new_first else more), strict=True) for e in pair)
        run.take(run.overlap.settle(quiet=True))
        everything += rest
    remaining = iter(run.messages)
    assert all(message in remaining for message in everything)  # in order; doubles may stand between
    if run.switched is not None:
        true = [frame for message in everything[cut:] for frame in message]
        assert len(run.of_new_type) <= len(true) + len(run.messages) - len(everything)


def test_a_quiet_table_is_decided_exactly_though_all_is_alike() -> None:
    run = Run()
    run.feed(published([[[b"x"]]] * 9, 5, new_first=False))
    assert not run.overlap.over
    run.take(run.overlap.settle(quiet=True))
    assert (run.messages, run.back) == ([[b"x"]] * 9, 4)


def test_an_old_topic_that_is_silent_is_given_up() -> None:
    run = Run()
    run.feed(iter([("old", [b"1"]), ("new", [b"2"]), ("new", [b"3"])]))
    assert run.messages == [[b"1"]]
    run.take(run.overlap.settle(quiet=False))
    assert (run.messages, run.switched, run.back) == ([[b"1"], [b"2"], [b"3"]], 1, 0)


def test_what_is_kept_is_bounded_while_the_new_topic_has_not_set_in() -> None:
    overlap = Overlap()
    for number in range(100):
        overlap.old([b"%d" % number])
    assert len(overlap._old) == RECENT
    assert overlap.settle(quiet=True) == []
    assert not overlap.over


def test_rows_all_alike_do_not_keep_both_topics_for_ever() -> None:
    run = Run()
    run.feed(published([[[b"x"]]] * 200, 10, new_first=False))
    assert run.overlap.over
    assert len(run.messages) >= 200
