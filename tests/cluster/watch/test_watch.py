"""Where the page is served: the file's port, the one of before, or the first free one; and what is said of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import requests

from cluster.config.web import Web
from cluster.watch import watch
from cluster.watch.watch import Watch
from tests.cluster.statuses import pipeline


class Pipeline:
    """A supervisor as far as the watch asks one."""

    def __init__(self, web: Web, web_port: int | None = None) -> None:
        self.web = web
        self.web_port = web_port
        self.stopped = False
        self.shown: tuple[str | None, str | None] | None = None

    def status(self) -> dict[str, Any]:
        return pipeline()

    def served(self, url: str | None, port: int | None, problem: str | None) -> None:
        self.shown = url, problem
        self.web_port = port or self.web_port


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two free ports in place of the usual ones, which others of this machine may have."""
    with closing(socket.socket()) as one, closing(socket.socket()) as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], two.getsockname()[1]]
    monkeypatch.setattr(watch, "PORTS", ports)
    return ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        yield other.getsockname()[1]


@pytest.fixture
def watching() -> Iterator[Callable[[Pipeline], Watch]]:
    """Makes watches, and ends them."""
    made: list[Watch] = []

    def begin(supervisor: Pipeline) -> Watch:
        made.append(Watch(supervisor))
        return made[-1]

    yield begin
    for each in made:
        each.end()


def answers(supervisor: Pipeline) -> bool:
    assert supervisor.shown is not None
    return requests.get(f"{supervisor.shown[0]}/live", timeout=10).text == "live\n"


def test_the_first_free_port(watching: Callable[[Pipeline], Watch], free: list[int]) -> None:
    with closing(socket.create_server(("127.0.0.1", free[0]))):
        first = Pipeline(Web())
        watching(first).round(0.0)
        assert first.shown == (f"http://127.0.0.1:{free[1]}", None)
    assert answers(first)


def test_the_port_of_before_is_waited_for_and_then_given_up(
    watching: Callable[[Pipeline], Watch], free: list[int], taken: int
) -> None:
    supervisor = Pipeline(Web(), web_port=taken)
    shown = watching(supervisor)
    for _ in range(watch.ATTEMPTS):
        shown.round(0.0)
        assert supervisor.shown is not None
        assert "in use" in str(supervisor.shown[1])
    shown.round(0.0)
    assert supervisor.shown == (f"http://127.0.0.1:{free[0]}", None)


def test_the_port_of_before_comes_back(watching: Callable[[Pipeline], Watch]) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        before = probe.getsockname()[1]
    supervisor = Pipeline(Web(), web_port=before)
    watching(supervisor).round(0.0)
    assert supervisor.shown == (f"http://127.0.0.1:{before}", None)


def test_a_port_of_the_file_that_is_in_use_is_a_problem_until_it_is_free(
    watching: Callable[[Pipeline], Watch], taken: int
) -> None:
    supervisor = Pipeline(Web(port=taken))
    shown = watching(supervisor)
    shown.round(0.0)
    assert supervisor.shown == (None, f"the web page: port {taken} on 127.0.0.1 is in use: choose another")
    supervisor.web = Web()
    shown.round(1.0)
    assert answers(supervisor)


def test_an_address_of_another_machine_is_a_problem_and_no_reason_to_end(
    watching: Callable[[Pipeline], Watch],
) -> None:
    supervisor = Pipeline(Web(host="192.0.2.1"))
    watching(supervisor).round(0.0)
    assert supervisor.shown is not None
    assert supervisor.shown[0] is None
    assert str(supervisor.shown[1]).startswith("the web page: ")


def test_it_can_be_turned_off_while_the_pipeline_runs(watching: Callable[[Pipeline], Watch]) -> None:
    supervisor = Pipeline(Web())
    shown = watching(supervisor)
    shown.round(0.0)
    assert answers(supervisor)
    url = supervisor.shown and supervisor.shown[0]
    supervisor.web = Web(enabled=False)
    shown.round(1.0)
    assert supervisor.shown == (None, None)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/live", timeout=10)


def test_it_ends_with_the_pipeline() -> None:
    supervisor = Pipeline(Web())
    supervisor.stopped = True
    Watch(supervisor).run()
    assert supervisor.shown == (None, None)
