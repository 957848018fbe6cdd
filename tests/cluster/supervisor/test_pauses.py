"""What is paused, and what goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.supervisor.pauses import Pauses

TABLES, SINKS = ("a", "b", "both"), ("x", "y", "both")
TARGETS = st.sampled_from([None, *TABLES, *SINKS])


def test_a_table_delivers_nothing_and_a_sink_gets_nothing() -> None:
    pauses = Pauses()
    pauses.pause("a", TABLES, SINKS)
    pauses.pause("y", TABLES, SINKS)
    assert pauses.of("a", SINKS) == ["both", "x", "y"]
    assert pauses.of("b", SINKS) == ["y"]
    assert pauses.of("b", ("x",)) == []
    assert pauses.resume("a") == {"tables": ["a"], "sinks": []}
    assert pauses.of("a", SINKS) == ["y"]
    pauses.pause(None, TABLES, SINKS)
    assert pauses.resume("x") == {"tables": [], "sinks": ["x"]}
    assert pauses.resume(None) == {"tables": [], "sinks": ["both", "y"]}
    assert pauses.resume(None) == {"tables": [], "sinks": []}


def test_what_is_taken_out_of_the_file_is_paused_no_more() -> None:
    pauses = Pauses({"a", "b"}, {"x"})
    pauses.keep(["b", "c"], ["y"])
    assert pauses == Pauses({"b"}, set())


@given(st.lists(st.tuples(st.booleans(), TARGETS)))
def test_it_is_remembered_and_everything_can_be_resumed(steps: list[tuple[bool, str | None]]) -> None:
    pauses = Pauses()
    for pause, target in steps:
        if pause:
            pauses.pause(target, TABLES, SINKS)
            assert target not in TABLES or pauses.of(str(target), SINKS) == sorted(SINKS)
        else:
            pauses.resume(target)
        assert Pauses.recall(pauses.dump()) == pauses
    pauses.resume(None)
    assert all(pauses.of(table, SINKS) == [] for table in TABLES)
