"""Which decoder gets the next block."""

from __future__ import annotations

from actors.monitor.pool import LOOK_AGAIN, DecoderPool


class Cluster:
    """Actors by name; `looks` counts how often they were looked for."""

    def __init__(self, *names: str) -> None:
        self.actors: dict[str, object] = {name: object() for name in names}
        self.looks = 0

    def find(self, name: str) -> object | None:
        self.looks += 1
        return self.actors.get(name)

    def pool(self, count: int) -> DecoderPool:
        pool = DecoderPool(lambda number: f"d{number}", self.find)
        pool.resize(count)
        return pool


def taken(pool: DecoderPool, now: float = 0.0) -> tuple[int, object]:
    found = pool.take(now)
    assert found is not None
    return found


def test_the_least_busy_decoder_is_next() -> None:
    cluster = Cluster("d0", "d1", "d2")
    pool = cluster.pool(3)
    assert [taken(pool)[0] for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    pool.done(1)
    assert taken(pool) == (1, cluster.actors["d1"])
    assert cluster.looks == 3


def test_none_that_can_be_found_is_none_and_looking_is_rare() -> None:
    cluster = Cluster()
    pool = cluster.pool(2)
    assert all(pool.take(now) is None for now in (0.0, 0.1, LOOK_AGAIN - 0.01))
    assert cluster.looks == 2
    cluster.actors["d1"] = object()
    assert taken(pool, LOOK_AGAIN) == (1, cluster.actors["d1"])


def test_a_dead_decoder_is_replaced_by_its_successor_and_never_used_again() -> None:
    cluster = Cluster("d0", "d1")
    pool = cluster.pool(2)
    number, dead = taken(pool)
    pool.done(number)
    pool.lost(number, dead, dead=True, now=0.0)
    assert [taken(pool)[0] for _ in range(3)] == [1, 1, 1]  # its name still finds the dead one
    cluster.actors["d0"] = successor = object()
    assert taken(pool, LOOK_AGAIN) == (0, successor)
    pool.lost(0, dead, dead=True, now=LOOK_AGAIN)  # a late answer of the one before
    assert taken(pool, LOOK_AGAIN) == (0, successor)


def test_the_pool_shrinks_and_late_answers_do_not_matter() -> None:
    cluster = Cluster("d0", "d1")
    pool = cluster.pool(2)
    taken(pool)
    number, handle = taken(pool)
    assert number == 1
    pool.resize(1)
    pool.done(1)
    pool.lost(1, handle, dead=True, now=0.0)
    assert taken(pool)[0] == 0
    pool.resize(2)
    assert taken(pool)[0] == 1
