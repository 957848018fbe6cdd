"""The reorder buffer: any order of arrival comes out in order, and only the attached owner is listened to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.block import BlockId
from actors.errors import NotAttached, StaleOwner
from actors.writer.reorder import ReorderBuffer


def ident(number: int) -> BlockId:
    return BlockId("t", 1, number)


def previous(number: int) -> BlockId | None:
    return ident(number - 1) if number else None


@given(st.permutations(range(12)))
def test_any_order_of_arrival_comes_out_in_order(arrivals: list[int]) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer("t")
    buffer.attach((1, 1))
    out: list[int] = []
    for held, number in enumerate(arrivals, 1):
        out += buffer.offer((1, 1), ident(number), previous(number), number)
        assert len(buffer) == held - len(out)
        first_missing = min(set(range(13)) - set(arrivals[:held]))
        assert out == list(range(first_missing))
    assert len(buffer) == 0


def test_only_the_attached_owner_is_listened_to() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer("t")
    with pytest.raises(NotAttached):
        buffer.offer((1, 1), ident(0), None, "x")
    buffer.attach((5, 3))
    with pytest.raises(StaleOwner, match="owned by a newer monitor"):
        buffer.offer((4, 9), ident(0), None, "x")
    for owner in ((5, 2), (5, 4), (6, 1)):
        with pytest.raises(NotAttached):
            buffer.offer(owner, ident(0), None, "x")
    for owner in ((5, 2), (4, 9)):
        with pytest.raises(StaleOwner):
            buffer.attach(owner)
    assert buffer.offer((5, 3), ident(0), None, "x") == ["x"]


def test_a_new_session_begins_anew_and_gives_back_what_waited() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer("t")
    buffer.attach((1, 1))
    assert buffer.offer((1, 1), ident(0), None, "0") == ["0"]
    assert buffer.offer((1, 1), ident(2), ident(1), "2") == []
    assert buffer.attach((1, 2)) == ["2"]
    assert buffer.offer((1, 2), ident(0), None, "0 again") == ["0 again"]
    assert buffer.attach((2, 1)) == []


def test_a_block_that_came_already_is_refused_instead_of_waiting_for_ever() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer("t")
    buffer.attach((1, 1))
    buffer.offer((1, 1), ident(0), None, "0")
    buffer.offer((1, 1), ident(1), ident(0), "1")
    for number in (0, 1):
        with pytest.raises(NotAttached, match="came twice"):
            buffer.offer((1, 1), ident(number), previous(number), "again")


def test_nothing_is_taken_after_the_session_was_ended() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer("t")
    buffer.attach((1, 1))
    buffer.offer((1, 1), ident(0), None, "0")
    buffer.offer((1, 1), ident(2), ident(1), "2")
    assert buffer.detach((1, 0)) == []
    assert buffer.detach((1, 1)) == ["2"]
    with pytest.raises(NotAttached):
        buffer.offer((1, 1), ident(1), ident(0), "1")
    with pytest.raises(StaleOwner):
        buffer.attach((0, 1))
    buffer.attach((1, 2))
    assert buffer.offer((1, 2), ident(1), None, "1") == ["1"]
