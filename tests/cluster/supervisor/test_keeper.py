"""The supervisor with a cluster that is pretended: whom it starts, ends and finds, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors.monitor.settings import Predecessor
from actors.names import shared_home
from cluster.config import PipelineConfig
from cluster.supervisor import crew
from cluster.supervisor import keeper as keeper_module
from cluster.supervisor.actor import Supervisor
from cluster.supervisor.fleet import Kill, Look, MemberState, Ping
from cluster.supervisor.plan import drainer_spec
from cluster.supervisor.spools import FoundSpool, Place
from tests.cluster.supervisor.pretended import Pretended, Tables, node_of

SHARED = f"p/monitor/{shared_home(1)}"


def config(*tables: str | dict[str, Any], **changes: Any) -> PipelineConfig:
    values: dict[str, Any] = {
        "pipeline": "p",
        "source": {"kinetica": {"url": "http://127.0.0.1:9191"}},
        "tables": [{"name": table} if isinstance(table, str) else table for table in tables],
        "sinks": {"s": {"console": {}}},
        "decoders": {"min": 1, "max": 1},
        "spool": {"path": "/spool"},
    }
    return PipelineConfig.model_validate(values | changes)


def shared(*tables: str | dict[str, Any], **changes: Any) -> PipelineConfig:
    return config(*tables, monitors_per_actor=10, **changes)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


Run = Callable[[PipelineConfig], Supervisor]


@pytest.fixture
def run(cluster: Pretended) -> Run:
    """Makes a supervisor and lets it get everything up."""

    def run(config: PipelineConfig) -> Supervisor:
        supervisor = Supervisor(config)
        rounds(supervisor)
        assert {member.state for member in supervisor._fleet.members.values()} == {MemberState.UP}
        return supervisor

    return run


def rounds(supervisor: Supervisor, count: int = 8) -> None:
    for _ in range(count):
        supervisor._round()


def kinds(supervisor: Supervisor) -> list[str]:
    return sorted(member.spec.kind for member in supervisor._fleet.members.values())


def test_everything_comes_up_and_ends(cluster: Pretended, run: Run) -> None:
    supervisor = run(shared("a", "b"))
    assert set(cluster.actors) == {SHARED, "p/writer/s", "p/decoder/0"}
    assert set(cluster.tables(SHARED).seats) == {"a", "b"}
    assert supervisor.stop(0.0) == {"pending": 0, "silent": []}
    assert cluster.actors == {}
    assert cluster.kept == {}


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_table_that_is_exchanged_gets_no_drainer(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it ends it is wanted by nobody, and its spool may hold something."""
    supervisor = run(shared("a", "b"))
    seen: list[str] = []
    end = Tables.end

    def slow(tables: Tables, table: str, incarnation: int) -> None:
        supervisor._hosts.spools[Place("a", shared_home(1), table)] = FoundSpool(
            table, 5, {"s": 3}, home=shared_home(1)
        )
        rounds(supervisor, 2)
        seen.extend(kinds(supervisor))
        end(tables, table, incarnation)

    monkeypatch.setattr(Tables, "end", slow)
    changed = shared("a", {"name": "b", "events": ["insert"]})
    assert supervisor.apply(changed.dump(), 1.0) is None
    assert seen
    assert "drainer" not in seen
    rounds(supervisor)
    assert kinds(supervisor).count("monitor") == 2
    assert "drainer" not in kinds(supervisor)


def test_a_drainer_gives_way_to_the_monitor_of_its_table(cluster: Pretended, run: Run) -> None:
    supervisor = run(shared("a"))
    place = Place("a", shared_home(1), "b")
    supervisor._hosts.spools[place] = FoundSpool("b", 5, {"s": 3}, home=shared_home(1))
    rounds(supervisor)
    spec = drainer_spec(supervisor._config, place, ["s"], None, SHARED)
    assert spec.name in supervisor._fleet.members
    assert "b" in cluster.tables(SHARED).seats
    assert supervisor.apply(shared("a", "b").dump(), 1.0) is None
    rounds(supervisor)
    assert spec.name not in supervisor._fleet.members
    assert cluster.tables(SHARED).seats["b"]["state"] == "receiving"
    assert cluster.tables(SHARED).seats["b"]["incarnation"] == supervisor._incarnations["p/monitor/b"]


def test_only_the_end_of_the_pipeline_ends_sources_that_were_read(cluster: Pretended, run: Run) -> None:
    """A change lets tables deliver first, and is no reason to read anything again."""
    supervisor = run(config("a", "b"))
    assert supervisor.apply(config("a").dump(), 1.0) is None
    supervisor.stop(0.0)
    drains = [(name, *said) for name, method, said in cluster.said if method == "drain"]
    assert drains == [("p/monitor/b", ["b"], False), ("p/monitor/a", ["a"], True)]


# -- tables that get another spool ------------------------------------------------------------------------------------


def predecessor(before: dict[str, Any], spool: str) -> Predecessor:
    """Of the table that said `before` of itself last."""
    return Predecessor("a", before["epoch"], before["last_received"], tuple(before["topics"]), spool)


def test_another_path_of_spools_is_a_gap_and_is_searched(cluster: Pretended, run: Run) -> None:
    supervisor = run(config("a", "b"))
    before = cluster.tables("p/monitor/a").seats["a"]
    cluster.spools["/other"] = [FoundSpool("gone", 5)]
    assert supervisor.apply(config("a", "b", spool={"path": "/other"}).dump(), 1.0) is None
    rounds(supervisor)
    assert cluster.tables("p/monitor/a").predecessors == {"a": predecessor(before, "/spool/p/a")}
    assert cluster.searched[-1] == (node_of("a"), "/other")
    assert Place("a", "gone", "gone") in supervisor._hosts.spools
    # It is known to a supervisor that comes later, and to one that starts the table again.
    later = Supervisor(config("a", "b"))
    assert later._hosts.given_up == supervisor._hosts.given_up
    assert set(later._hosts.given_up) == {"a", "b"}


def test_a_shared_table_that_gets_a_standby_delivers_first_and_notes_the_gap(
    cluster: Pretended, run: Run
) -> None:
    """Also if `monitors_per_actor` says by now that no table shares."""
    supervisor = run(shared("a", "b"))
    supervisor.apply(config("a", "b").dump(), 1.0)
    before = cluster.tables(SHARED).seats["b"]
    cluster.said.clear()
    assert supervisor.apply(config("a", {"name": "b", "standby": True}).dump(), 1.0) is None
    rounds(supervisor)
    assert (SHARED, "drain", (["b"], False)) in cluster.said
    assert set(cluster.tables(SHARED).seats) == {"a"}
    places = [cluster.tables(f"p/monitor/{home}") for home in ("b", "b~standby")]
    found = [place.predecessors["b"] for place in places if place.predecessors]
    assert found == [predecessor(before, "/spool/p/shared~1")]


# -- what an earlier life has left ------------------------------------------------------------------------------------


def test_a_supervisor_that_died_in_the_midst_of_a_change_ends_what_is_wanted_no_more(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = {"s": {"console": {}}, "gone": {"console": {}}}
    supervisor = run(shared("a", "b", {"name": "c", "standby": True}, sinks=sinks))
    changed = shared("a")

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(supervisor, "_exchange", killed)
    with pytest.raises(SystemExit):
        supervisor.apply(changed.dump(), 1.0)
    run(shared("a", "b", {"name": "c", "standby": True}, sinks=sinks))
    assert set(cluster.actors) == {SHARED, "p/writer/s", "p/decoder/0"}
    assert set(cluster.tables(SHARED).seats) == {"a"}


@pytest.mark.parametrize("made", [config, shared])
def test_a_table_that_was_stopped_by_a_supervisor_that_died_receives_again(
    cluster: Pretended, run: Run, made: Callable[..., PipelineConfig]
) -> None:
    supervisor = run(made("a"))
    supervisor._drain(0.0)
    name = supervisor._fleet.members["p/monitor/a"].spec.actor
    assert cluster.tables(name).seats["a"]["state"] == "stopped"
    run(made("a"))
    assert cluster.tables(name).seats["a"]["state"] == "receiving"


def test_what_nobody_knows_ends_with_the_pipeline(cluster: Pretended, run: Run) -> None:
    supervisor = run(config("a"))
    handle = cluster.actors["p/writer/s"]
    for stray in ("p/writer/old", "p/supervisor", "pp/writer/s"):
        cluster.actors[stray] = type(handle)(cluster, stray, handle.actor, {})
    supervisor.stop(0.0)
    assert set(cluster.actors) == {"p/supervisor", "pp/writer/s"}
    assert supervisor.stop(60.0) == {"pending": 0, "silent": []}, "at once"


# -- processes that tables share --------------------------------------------------------------------------------------


def fail(cluster: Pretended, supervisor: Supervisor, *tables: str) -> None:
    """Let these tables fail and stay down."""
    for table in tables:
        cluster.tables(SHARED).seats[table] |= {"state": "failed", "problem": "of its own"}
        supervisor._fleet.members[f"p/monitor/{table}"].answered_at = -1.0
    supervisor._round()
    for table in tables:
        member = supervisor._fleet.members[f"p/monitor/{table}"]
        assert member.state is MemberState.DOWN
        member.start_at = float("inf")


@pytest.mark.parametrize("found", [False, True])
def test_a_process_goes_also_when_all_its_tables_are_down(cluster: Pretended, run: Run, found: bool) -> None:
    supervisor = run(shared("a", "b"))
    if found:
        supervisor = run(shared("a", "b"))
    fail(cluster, supervisor, "a", "b")
    before = cluster.actors[SHARED]
    assert supervisor.apply(shared("a", "b", tuning={"window_bytes": 2**20}).dump(), 1.0) is None
    assert not before.alive
    rounds(supervisor)
    fail(cluster, supervisor, "a", "b")
    supervisor.stop(0.0)
    assert cluster.actors == {}


def test_tables_that_end_together_end_with_their_process(cluster: Pretended, run: Run) -> None:
    """In one call, as it ends many at a time."""
    supervisor = run(shared("a", "b", "c"))
    before = cluster.actors[SHARED]
    assert supervisor.apply(shared("a", "b", "c", tuning={"window_bytes": 2**20}).dump(), 1.0) is None
    assert not before.alive
    assert before.actor.stopped
    assert "end" not in [method for _, method, _ in cluster.said]
    rounds(supervisor)
    assert set(cluster.tables(SHARED).seats) == {"a", "b", "c"}


def test_an_actor_that_is_out_of_reach_for_a_moment_goes_on(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PING_INTERVAL", 0.0)
    supervisor = run(shared("a", "b"))
    before = cluster.actors[SHARED]
    cluster.errors[SHARED] = [ActorUnavailableError("away", b"0" * 16) for _ in range(3)]
    for member in supervisor._fleet.members.values():
        member.answered_at = -1.0
    supervisor._round()
    assert supervisor._fleet.members["p/monitor/a"].asked_at is not None
    rounds(supervisor)
    assert cluster.actors[SHARED] is before
    assert not supervisor._fleet.failures
    assert supervisor._fleet.members["p/monitor/a"].asked_at is None


# -- rounds -----------------------------------------------------------------------------------------------------------


def test_what_fails_keeps_nobody_from_the_rest_of_the_round(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = run(shared("a", "b", "c"))
    asked: list[str] = []
    monkeypatch.setattr(keeper_module, "has_no_process", lambda _: 1 / 0)
    monkeypatch.setattr(
        supervisor._fleet,
        "actions",
        # Killing the process takes the other tables along, of which one was to be asked.
        lambda _: [Look("p/writer/s"), Kill("p/monitor/a"), Ping("p/monitor/b"), Ping("p/decoder/0")],
    )
    cluster.said.clear()
    supervisor._round()
    asked = [name for name, method, _ in cluster.said if method == "status"]
    assert asked == ["p/decoder/0"]


def test_an_answer_that_cannot_be_taken_is_asked_for_again(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PING_INTERVAL", 0.0)
    supervisor = run(shared("a", "b"))
    take, failures = supervisor._take, [RuntimeError("once")]

    def taking(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        take(*arguments)

    monkeypatch.setattr(supervisor, "_take", taking)
    for member in supervisor._fleet.members.values():
        member.answered_at = -1.0
    rounds(supervisor)
    assert not failures
    assert [m.asked_at for m in supervisor._fleet.members.values()] == [None] * 4


def test_who_is_bound_to_a_host_waits_for_its_cpus(
    cluster: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.hosts = ["a", "b"]
    supervisor = run(config("t"))
    free = {node_of("a"): {}, node_of("b"): {"CPU": 3.0}}
    monkeypatch.setattr("ray._private.state.available_resources_per_node", lambda: free)
    monkeypatch.setattr(keeper_module, "has_no_process", lambda _: True)
    for name, why in (
        ("p/monitor/t", "waiting for 0.1 CPUs on host a; add some, or end something"),
        ("p/writer/s", None),
    ):
        supervisor._fleet.members[name].state = MemberState.STARTING
        supervisor._do(Look(name))
        assert supervisor._fleet.members[name].waiting == why
