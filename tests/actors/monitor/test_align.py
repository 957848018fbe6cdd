"""A standby knows which records its primary has not stored: with drops on either side, repetitions and late starts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.monitor.align import RUN, Alignment

#: Few different records, so that most are repeated.
repeating = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=60)


def records(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % n for n in range(start, start + count)]


records_of_any = st.integers(0, 60).map(records)


class Pair:
    """A source, a primary that stores what it was sent, and a standby beside it."""

    def __init__(self, aligned: bool = True) -> None:
        self.alignment = Alignment()
        if aligned:
            self.alignment.quiet()
        self.stored: list[bytes] = []
        self.missed: list[bytes] = []

    def receive(self, frames: list[bytes]) -> None:
        self.missed += self.alignment.receive(frames)

    def store(self, frames: list[bytes]) -> None:
        self.stored += frames
        self.missed += self.alignment.store(frames)

    def quiet(self) -> None:
        self.missed += self.alignment.quiet()

    def heal(self) -> None:
        """The primary is given what it was not sent, and stores it."""
        missed, self.missed = self.missed, []
        self.store(missed)

    def run(self, to_primary: list[bytes], to_standby: list[bytes], data: st.DataObject) -> None:
        """Both get theirs, neither in step with the other."""
        while to_primary or to_standby:
            size = data.draw(st.integers(1, 12))
            if to_standby and (not to_primary or data.draw(st.booleans())):
                self.receive(to_standby[:size])
                to_standby = to_standby[size:]
            else:
                self.store(to_primary[:size])
                to_primary = to_primary[size:]


@given(repeating, st.data())
def test_what_is_left_when_the_primary_dies_follows_what_it_stored(
    published: list[bytes], data: st.DataObject
) -> None:
    pair = Pair()
    died = data.draw(st.integers(0, len(published)))
    pair.run(published[:died], published, data)
    assert pair.missed == []
    assert pair.stored + pair.alignment.rest() == published


@settings(max_examples=300)
@given(
    st.tuples(repeating, st.sampled_from(["bbbp", "bbbs"])) | st.tuples(records_of_any, st.just("bbbbps")),
    st.data(),
)
def test_what_one_was_not_sent_is_found_and_healed(
    case: tuple[list[bytes], str], data: st.DataObject
) -> None:
    """With repetitions one of the two gets all: that each lacks one of two equal records shows nowhere."""
    published, kinds = case
    fates = data.draw(st.lists(st.sampled_from(kinds), min_size=len(published), max_size=len(published)))
    to_primary = [frame for frame, fate in zip(published, fates, strict=True) if fate != "s"]
    to_standby = [frame for frame, fate in zip(published, fates, strict=True) if fate != "p"]
    pair = Pair()
    half = data.draw(st.integers(0, len(to_primary))), data.draw(st.integers(0, len(to_standby)))
    pair.run(to_primary[: half[0]], to_standby[: half[1]], data)
    if data.draw(st.booleans()):
        pair.heal()
    pair.run(to_primary[half[0] :], to_standby[half[1] :], data)
    assert not Counter(to_standby) - Counter(pair.stored) - Counter(pair.alignment.rest())
    pair.quiet()
    pair.heal()
    assert Counter(pair.stored) == Counter(published)
    assert pair.alignment.rest() == []
    assert not pair.missed


@given(st.integers(0, 30), st.integers(0, 30), st.integers(RUN, 40), st.data())
def test_a_late_start_is_aligned_at_a_run(before: int, heard: int, common: int, data: st.DataObject) -> None:
    """The standby comes when the primary has stored some; either may be further on at that moment."""
    published = records(max(before, heard) + common)
    pair = Pair(aligned=False)
    pair.stored = published[:before]  # copied as a whole
    died = data.draw(st.integers(max(before, heard) + RUN, len(published)))
    pair.run(published[before:died], published[heard:], data)
    assert pair.alignment.aligned
    assert pair.missed == []
    assert pair.stored + pair.alignment.rest() == published


def test_repetitions_alone_align_nothing_until_it_is_quiet() -> None:
    pair = Pair(aligned=False)
    pair.receive([b"a"] * 50)
    pair.store([b"a"] * 50)
    assert not pair.alignment.aligned
    pair.quiet()
    assert pair.alignment.aligned
    pair.receive([b"a"] * 3)
    pair.store([b"a"] * 2)
    assert pair.alignment.rest() == [b"a"]


def test_a_run_amid_repetitions_aligns() -> None:
    pair = Pair(aligned=False)
    published = [b"a"] * 30 + records(RUN) + [b"a"] * 30
    pair.receive(published[5:])
    pair.store(published[10:50])
    assert pair.alignment.aligned
    assert pair.alignment.rest() == published[50:]


def test_records_dropped_on_their_way_to_the_standby_are_counted_and_cost_nothing() -> None:
    pair = Pair()
    pair.receive(records(10) + records(20, 15))
    pair.store(records(35))
    assert (pair.missed, pair.alignment.lacked, pair.alignment.rest()) == ([], 5, [])


def test_what_was_named_and_not_stored_yet_is_not_lost_with_the_primary() -> None:
    pair = Pair()
    pair.receive(records(30))
    pair.store(records(10) + records(15, 11))
    assert pair.missed == [b"10"]
    assert pair.alignment.rest() == [b"10", *records(4, 26)]
    pair.heal()
    assert pair.alignment.rest() == records(4, 26)


def test_memory_is_bounded_and_what_was_given_up_is_told() -> None:
    alignment = Alignment(max_bytes=100 * 50)
    alignment.quiet()
    alignment.receive(records(1000))
    assert not alignment.complete
    assert alignment.rest() == records(100, 900)[-len(alignment.rest()) :]
    assert len(alignment.rest()) <= 100
    # The primary was only slow: both find each other again.
    alignment.store(records(1000))
    assert alignment.complete
    assert alignment.rest() == []
