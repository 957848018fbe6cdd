"""What tables of one process share of a server: one client, one question at a time, its failures too."""

from __future__ import annotations

import threading

import pytest

from actors.monitor.server import Shared, lease


def test_those_who_ask_at_once_share_one_answer() -> None:
    asked, go = threading.Semaphore(0), threading.Event()
    count = 0

    def ask() -> int:
        nonlocal count
        count += 1
        asked.release()
        assert go.wait(30)
        return count

    shared = Shared(ask)
    answers: list[tuple[float, int]] = []
    threads = [threading.Thread(target=lambda: answers.append(shared.get(3600.0))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert asked.acquire(timeout=30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 5
    assert len(set(answers)) == 1
    assert shared.get(3600.0) == answers[0]
    assert shared.get(0.0)[1] == 2, "not older than the question"


def test_a_failure_is_shared_and_not_for_ever() -> None:
    failures = [OSError("away"), None]

    def ask() -> str:
        if (failure := failures.pop(0)) is not None:
            raise failure
        return "here"

    shared = Shared(ask)
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            shared.get(3600.0)
    assert shared.get(0.0)[1] == "here"


def test_a_server_is_the_same_for_all_who_have_it_at_a_time() -> None:
    source = {"urls": ["http://127.0.0.1:9"], "username": "u", "password": "p"}
    one, two = lease(source), lease({**source})
    other = lease({**source, "password": "q"})
    assert one is two
    assert other is not one
    one.release()
    assert lease(source) is one
    for server in (one, two, other):
        server.release()
    again = lease(source)
    assert again is not one
    again.release()
