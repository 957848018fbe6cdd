"""Which state holds once rows are stored."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.monitor.datasource import states
from actors.monitor.datasource.states import States


def _parsed(state: str | None) -> Any:
    return None if state is None else json.loads(state)


def test_states_hold_with_the_rows_that_name_them_and_so_do_those_before() -> None:
    all_states = States({"a": 0})
    for number, told in enumerate(({"a": 1}, {"b": 1}, {"a": 2})):
        all_states.told(number, told)
    assert _parsed(all_states.read(2, [1, 1])) == {"a": 1, "b": 1}
    assert all_states.read(1, [1]) is None
    assert all_states.read(1, []) is None  # nothing says that the rows of the last state were given
    assert _parsed(all_states.ended()) == {"a": 2, "b": 1}


def test_without_names_all_that_was_told_holds_with_the_rows_of_the_read() -> None:
    all_states = States()
    assert all_states.read(0, []) is None
    told = {"n": [1]}
    all_states.told("x", told)
    told["n"].append(2)  # the source goes on to use it
    assert all_states.read(0, []) is None  # its rows may be yet to come
    assert _parsed(all_states.read(1, [])) == {"n": [1]}
    assert all_states.ended() is None


def test_a_state_that_no_row_names_waits_within_bounds() -> None:
    all_states = States()
    for number in range(states.MOST_WAITING + 10):
        all_states.told(number, {str(number % 3): number})
    assert all_states.read(1, ["other"]) is None
    assert _parsed(all_states.read(1, [10])) == {"0": 9, "1": 10, "2": 8}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_a_source_that_reads_ahead_is_never_taken_to_be_further_than_its_rows(
    reads: list[tuple[int, bool]],
) -> None:
    """Each read tells of states for more rows than it gives."""
    all_states, told, rows = States(), 0, 0
    for ahead, gives in reads:
        for _ in range(ahead):
            told += 1
            all_states.told(f"s{told}", {"done": told})
        if gives and rows < told:
            rows += 1
            assert _parsed(all_states.read(1, [f"s{rows}"])) == {"done": rows}
        else:
            assert all_states.read(0, []) is None
    assert _parsed(all_states.ended()) == ({"done": told} if rows < told else None)
