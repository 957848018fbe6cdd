"""The endpoints: what they answer, whom they refuse, and that the page is among the files of a wheel."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hatchling.builders.wheel import WheelBuilder
from prometheus_client.parser import text_string_to_metric_families

from cluster.watch.web.server import Board, WebServer
from tests.cluster.statuses import pipeline, table

ROOT = Path(__file__).parents[4]
PAGE = {"page.html", "page.css", "page.js", "dom.js", "flow.js", "lists.js", "charts.js", "icon.svg"}


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def server(board: Board) -> Iterator[WebServer]:
    with WebServer(board, "127.0.0.1", 0, ["tablecast.example.com"]) as server:
        yield server


def get(server: WebServer, path: str, host: str | None = None, method: str = "GET") -> requests.Response:
    headers = {} if host is None else {"Host": host}
    return requests.request(method, server.url + path, headers=headers, timeout=10)


def test_before_the_first_status(server: WebServer) -> None:
    assert get(server, "/live").status_code == 200
    assert {get(server, path).status_code for path in ("/ready", "/status", "/metrics")} == {503}
    assert get(server, "/history").json()["total"] == {}


def test_what_the_endpoints_answer(server: WebServer, board: Board) -> None:
    status = pipeline()
    board.show(status, sample=True)
    assert get(server, "/status").json() == status
    assert get(server, "/ready").text == "ready\n"
    text = get(server, "/metrics")
    assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert any(family.name == "tablecast_lag_seconds" for family in text_string_to_metric_families(text.text))
    assert get(server, "/history").json()["total"]["time"] == [1000.0]
    assert get(server, "/history?table=t").json()["rate"] == [0.0]
    assert get(server, "/history?table=none").status_code == 404
    board.show(pipeline(tables=[table("t", "down", problem="killed")]), sample=False)
    ready = get(server, "/ready")
    assert (ready.status_code, ready.text) == (503, "table t is down: killed\n")
    assert get(server, "/history").json()["total"]["time"] == [1000.0]


def test_large_answers_are_compressed(server: WebServer, board: Board) -> None:
    status = pipeline(tables=[table(f"t{number}") for number in range(200)])
    board.show(status, sample=False)
    answer = get(server, "/status")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < len(json.dumps(status)) / 10
    assert answer.json() == status
    plain = requests.get(server.url + "/status", headers={"Accept-Encoding": "identity"}, timeout=10)
    assert "Content-Encoding" not in plain.headers
    assert plain.json() == status


def test_a_supervisor_that_says_nothing_is_not_live(
    server: WebServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.watch.web.server.PATIENCE", -1.0)
    answer = get(server, "/live")
    assert answer.status_code == 503
    assert answer.text.startswith("the supervisor has said nothing for ")


def test_the_page_loads_nothing_from_elsewhere(server: WebServer) -> None:
    page = get(server, "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in PAGE - {"page.html"}:
        file = get(server, f"/{name}")
        assert file.status_code == 200
        assert file.headers["Content-Type"].startswith(kinds[name.rpartition(".")[2]])
        for text in (file.text, page.text):
            assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""), name


@pytest.mark.parametrize(
    "host", ["localhost:9280", "127.0.0.1", "[::1]:80", "10.0.0.7:9280", "tablecast.example.com", "LOCALHOST"]
)
def test_addresses_and_known_names_are_answered(server: WebServer, host: str) -> None:
    assert get(server, "/live", host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9280", "127.0.0.1.evil.example", "", "[::1", "a@localhost.x"]
)
def test_other_names_are_refused_whatever_address_they_have(server: WebServer, host: str) -> None:
    answer = get(server, "/status", host)
    assert answer.status_code in (400, 421)
    assert 'pipeline":' not in answer.text


def test_only_reading(server: WebServer) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = get(server, "/status", method=method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert get(server, "/live", method="HEAD").status_code == 200


@pytest.mark.parametrize(
    "path", ["/server.py", "/__init__.py", "/../config.py", "/%2e%2e/config.py", "/page.html", "/x"]
)
def test_no_other_file(server: WebServer, path: str) -> None:
    assert get(server, path).status_code == 404


def test_a_wheel_has_the_page(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"cluster/watch/web/{name}" for name in PAGE} <= names
