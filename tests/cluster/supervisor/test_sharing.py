"""Which tables share a home: they stay where they are, whatever happens to others."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from actors.names import is_shared_home
from cluster.config import PipelineConfig
from cluster.supervisor.plan import monitor_specs, standby_specs
from cluster.supervisor.sharing import assign_homes


def config(tables: list[str], per_actor: int, standby: tuple[str, ...] = ()) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "pipeline": "p",
            "source": {"kinetica": {"url": "http://127.0.0.1:9191"}},
            "tables": [{"name": table, "standby": table in standby} for table in tables],
            "sinks": {"s": {"console": {}}},
            "monitors_per_actor": per_actor,
        }
    )


NAMES = [f"t{n}" for n in range(7)]
FILES = st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(1, 4))


def test_alone_by_default_and_together_in_the_order_of_the_file() -> None:
    assert assign_homes(config(NAMES, 1), {}) == {name: name for name in NAMES}
    homes = assign_homes(config(NAMES, 3), {})
    assert [homes[name] for name in NAMES] == [f"shared~{n}" for n in (1, 1, 1, 2, 2, 2, 3)]


def test_a_new_table_fills_a_gap_and_moves_nobody() -> None:
    before = assign_homes(config(NAMES, 3), {})
    left = [name for name in NAMES if name != "t1"]
    after = assign_homes(config(["new", *left, "newer"], 3), before)
    assert (after["new"], after["newer"]) == ("shared~1", "shared~3")
    assert {name: after[name] for name in left} == {name: before[name] for name in left}


def test_a_table_with_a_standby_is_alone() -> None:
    shared = config(NAMES, 4, standby=("t2",))
    homes = assign_homes(shared, {"t2": "shared~1"})
    assert homes["t2"] == "t2"
    specs = {spec.which: spec for spec in monitor_specs(shared, homes)}
    assert (specs["t2"].actor, specs["t2"].shares) == ("p/monitor/t2", False)
    assert (specs["t3"].name, specs["t3"].actor, specs["t3"].shares) == (
        "p/monitor/t3",
        "p/monitor/shared~1",
        True,
    )
    assert specs["t3"].settings.spool.endswith("/p/shared~1")
    assert [spec.home for spec in standby_specs(shared)] == ["t2~standby"]


@given(st.lists(FILES, min_size=1, max_size=6))
def test_over_changes_of_the_file_tables_stay_and_groups_keep_their_bound(
    files: list[tuple[list[str], int]],
) -> None:
    known: dict[str, str] = {}
    for tables, per_actor in files:
        homes = assign_homes(config(tables, per_actor), known)
        assert list(homes) == tables
        assert assign_homes(config(tables, per_actor), homes) == homes
        new = [table for table in tables if table not in known]
        assert all(homes[table] == known[table] for table in tables if table in known)
        count = Counter(homes.values())
        for table in new:
            assert is_shared_home(homes[table]) == (per_actor > 1)
            assert per_actor == 1 or count[homes[table]] <= per_actor
        known |= homes
