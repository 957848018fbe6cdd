"""From a running pipeline to a changed file: which steps, in which order, and which actors they concern."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import PipelineConfig
from cluster.supervisor.difference import Step, difference
from cluster.supervisor.plan import monitor_specs, writer_specs

KRONOS = {"kronos": {"url": "http://127.0.0.1:8151"}}


def config(**changes: Any) -> PipelineConfig:
    values: dict[str, Any] = {
        "pipeline": "p",
        "source": {
            "kinetica": {"url": "http://127.0.0.1:9191", "username": "u", "password": "correct-horse"}
        },
        "tables": [{"name": "a"}, {"name": "b", "sinks": ["one"]}],
        "sinks": {"one": KRONOS, "two": KRONOS},
        "spool": {"path": "/spool"},
    }
    return PipelineConfig.model_validate(values | changes)


def steps(**changes: Any) -> list[Step]:
    return difference(config(), config(**changes))


def texts(**changes: Any) -> list[str]:
    return [str(step) for step in steps(**changes)]


def test_the_same_file_in_another_order_is_no_change() -> None:
    assert steps() == []
    assert (
        steps(tables=[{"name": "b", "sinks": ["one"]}, {"name": "a"}], sinks={"two": KRONOS, "one": KRONOS})
        == []
    )


def test_a_new_table_concerns_no_other() -> None:
    assert texts(tables=[{"name": "a"}, {"name": "b", "sinks": ["one"]}, {"name": "c"}]) == ["add table c"]


def test_a_table_that_goes_delivers_first() -> None:
    assert texts(tables=[{"name": "a"}]) == ["remove table b; first delivers what b holds"]


def test_a_changed_table_restarts_its_monitor_alone() -> None:
    assert texts(tables=[{"name": "a", "events": ["insert"]}, {"name": "b", "sinks": ["one"]}]) == [
        "change table a: events [insert, update, delete] -> [insert]; restarts monitor a"
    ]


def test_a_table_that_leaves_a_sink_delivers_there_first() -> None:
    assert texts(tables=[{"name": "a", "sinks": ["two"]}, {"name": "b", "sinks": ["one"]}]) == [
        "change table a: sinks absent -> [two]; first delivers what a holds; restarts monitor a"
    ]


def test_a_new_sink_concerns_the_tables_that_go_to_all() -> None:
    assert texts(sinks={"one": KRONOS, "two": KRONOS, "three": {"console": {}}}) == [
        "add sink three; restarts monitor a"
    ]


def test_a_sink_that_goes_is_given_the_rest_first() -> None:
    assert texts(sinks={"one": KRONOS}) == [
        "remove sink two; first delivers what a holds; restarts monitor a"
    ]


def test_a_sink_of_another_kind_restarts_its_writer() -> None:
    assert texts(sinks={"one": KRONOS, "two": {"console": {"path": "/lines"}}}) == [
        "change sink two: kronos, console; restarts writer two"
    ]


def test_bounds_of_decoders_restart_nobody() -> None:
    assert texts(decoders={"min": 2, "max": 8}) == ["change decoders: min 1 -> 2, max 4 -> 8"]


def test_what_all_tables_share_restarts_all_monitors() -> None:
    assert texts(spool={"path": "/spool", "min_free": 7}) == [
        "change spool: min_free 1073741824 -> 7; restarts monitor a, monitor b"
    ]
    assert texts(tuning={"block": {"linger_ms": 9}}) == [
        "change tuning: block.linger_ms 50 -> 9; restarts monitor a, monitor b"
    ]


def test_another_spool_is_begun_when_the_old_one_is_empty() -> None:
    (step,) = steps(spool={"path": "/other"})
    assert step.drain == ("a", "b")


def test_a_standby_is_for_a_table_that_shares_another_spool() -> None:
    tables = [{"name": "a", "standby": True}, {"name": "b", "sinks": ["one"]}]

    def drained(per_actor: int, homes: dict[str, str] | None) -> tuple[str, ...]:
        running = config(monitors_per_actor=per_actor)
        (step,) = difference(running, config(monitors_per_actor=per_actor, tables=tables), homes)
        return step.drain

    assert drained(1, {"a": "shared~1"}) == ("a",), "since before `monitors_per_actor` was changed"
    assert drained(9, {"a": "a"}) == ()
    assert (drained(9, None), drained(1, None)) == (("a",), ())


def test_no_credential_is_shown() -> None:
    (step,) = steps(
        source={"kinetica": {"url": "http://127.0.0.1:9191", "username": "u", "password": "battery"}}
    )
    assert str(step) == "change source: kinetica.password; restarts monitor a, monitor b"
    assert "battery" not in repr(step)
    assert "correct" not in repr(step)


def test_no_value_that_is_the_users_own_is_shown() -> None:
    """Options of a custom sink may hold credentials, and so may those that take the place of none."""

    def custom(options: dict[str, Any]) -> dict[str, Any]:
        return {"one": {"custom": {"class": "a.b:C", "options": options}}, "two": KRONOS}

    for before, after in (({"password": "battery"}, {"password": "staple"}), ({}, {"password": "staple"})):
        (step,) = difference(config(sinks=custom(before)), config(sinks=custom(after)))
        assert str(step) == "change sink one: custom.options; restarts writer one"
        assert "staple" not in repr(step.config)
        assert "staple" not in str(step.config.sinks["one"].custom.options)


def test_a_table_moves_to_a_new_sink_and_the_old_one_goes() -> None:
    """The new sink is there before the table needs it, and the old one goes when nobody does."""
    moved = steps(
        tables=[{"name": "a", "sinks": ["new"]}, {"name": "b", "sinks": ["new"]}], sinks={"new": KRONOS}
    )
    assert [(step.action, step.part, step.which) for step in moved] == [
        ("add", "sink", "new"),
        ("change", "table", "a"),
        ("change", "table", "b"),
        ("remove", "sink", "one"),
        ("remove", "sink", "two"),
    ]
    assert [step.drain for step in moved[-2:]] == [(), ()]


def test_two_pipelines_have_no_difference() -> None:
    with pytest.raises(ValueError, match="two pipelines"):
        steps(pipeline="q")


SINKS = ("one", "two", "three")
TABLES = ("a", "b", "c", "d")


@st.composite
def configs(draw: st.DrawFn) -> PipelineConfig:
    names = draw(st.lists(st.sampled_from(SINKS), min_size=1, unique=True))
    kinds = st.sampled_from([KRONOS, {"console": {}}, {"parquet": {"path": "/lake"}}])
    some = st.none() | st.lists(st.sampled_from(names), min_size=1, unique=True)
    events = st.sampled_from([["insert"], ["insert", "delete"]])
    tables = [
        {"name": name, "sinks": draw(some), "events": draw(events)}
        for name in draw(st.lists(st.sampled_from(TABLES), min_size=1, unique=True))
    ]
    window = draw(st.sampled_from([2**24, 2**25]))
    return config(tables=tables, sinks={n: draw(kinds) for n in names}, tuning={"window_bytes": window})


def actors(config: PipelineConfig) -> dict[str, str]:
    return {spec.name: spec.digest for spec in (*monitor_specs(config), *writer_specs(config))}


@given(configs(), configs())
def test_the_steps_lead_from_one_to_the_other(running: PipelineConfig, wanted: PipelineConfig) -> None:
    here = running
    for step in difference(running, wanted):
        PipelineConfig.model_validate(step.config.dump())  # every step is a whole pipeline
        before, after = actors(here), actors(step.config)
        changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
        assert {name.replace("p/", "").replace("/", " ") for name in changed} == set(step.restarts)
        here = step.config
    assert {table.name: set(here.sinks_of(table)) for table in here.tables} == {
        table.name: set(wanted.sinks_of(table)) for table in wanted.tables
    }
    assert here.sinks == wanted.sinks
    assert here.tuning == wanted.tuning
    assert difference(here, wanted) == []


@given(configs(), configs())
def test_nothing_is_removed_before_it_is_drained(running: PipelineConfig, wanted: PipelineConfig) -> None:
    here = running
    for step in difference(running, wanted):
        left = {table.name: table for table in step.config.tables}
        for table in here.tables:
            sinks = set(step.config.sinks_of(left[table.name])) if table.name in left else set()
            if set(here.sinks_of(table)) - sinks:
                assert table.name in step.drain
        here = step.config


def test_a_page_elsewhere_restarts_nobody() -> None:
    (step,) = steps(web={"port": 9300})
    assert str(step) == "change web: port absent -> 9300"
    assert step.restarts == ()
