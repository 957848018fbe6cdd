"""A pipeline watched: its page in a browser, what its endpoints say, and both again after its supervisor was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import ray
import requests
from prometheus_client.parser import text_string_to_metric_families
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from cluster import control
from cluster.config import PipelineConfig
from cluster.supervisor.readiness import lacking
from cluster.watch.metrics import METRICS
from cluster.watch.status_schema import PipelineStatus
from cluster.watch.web.server import Board, WebServer
from protocols.kinetica.client import KineticaClient
from tests.cluster.statuses import check_status, pipeline, sink, table
from tests.e2e import traffic
from tests.e2e.conftest import DEADLINE, wait_until

#: Where Debian and others have the browser.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    *(
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
    ),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1400,1400"),
)


class Watched(NamedTuple):
    """A pipeline through which rows flow, and where its page is."""

    name: str
    tables: list[str]
    supervisor: Any
    url: str

    def status(self) -> dict[str, Any]:
        return get(self.url, "/status").json()


def get(url: str, path: str) -> requests.Response:
    return requests.get(url + path, timeout=10)


@pytest.fixture(scope="module")
def watched(
    ray_cluster: None, kinetica_url: str, kronos_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """One pipeline for all tests of this file: they leave it as it was."""
    name, tables = "watched", ["watched-a", "watched-b"]
    config = PipelineConfig.model_validate(
        {
            "pipeline": name,
            "source": {"kinetica": {"url": kinetica_url}},
            "tables": [{"name": table} for table in tables],
            "sinks": {
                "events": {"kronos": {"url": kronos_url}},
                "copy": {
                    "kronos": {
                        "url": kronos_url,
                        "namespace": "other",
                        "password": "correct-horse",
                        "username": "u",
                    }
                },
            },
            "decoders": {"min": 2},
            "spool": {"path": str(tmp_path_factory.mktemp("spool")), "min_free": 0},
        }
    )
    with KineticaClient(kinetica_url) as kinetica:
        for each in tables:
            traffic.create(kinetica, each)
        supervisor = control.start_pipeline(config)
        try:
            assert control.wait_ready(supervisor, DEADLINE), lacking(control.ask(supervisor, "status"))
            url = wait_until(lambda: control.ask(supervisor, "status")["web"]["url"], "the page is served")
            with traffic.Publisher(kinetica, tables):
                yield Watched(name, tables, supervisor, url)
        finally:
            control.stop_pipeline(name, 0.0)


def test_the_endpoints(watched: Watched) -> None:
    wait_until(lambda: get(watched.url, "/ready").status_code == 200, "ready")
    assert get(watched.url, "/live").text == "live\n"
    status = watched.status()
    for each in (status, control.ask(watched.supervisor, "status")):
        check_status(each)
        PipelineStatus.model_validate_json(json.dumps(each))  # no key that the schema does not tell of
    assert status.keys() == control.ask(watched.supervisor, "status").keys()

    def metrics() -> dict[str, float]:
        """Name -> the sum over all labels."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(get(watched.url, "/metrics").text):
            for sample in family.samples:
                assert sample.labels["pipeline"] == watched.name
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    wait_until(lambda: metrics()["tablecast_records_delivered_total"] > 1000, "records are delivered")
    assert metrics().keys() == {metric.name for metric in METRICS}
    assert metrics()["tablecast_records_received_total"] > 500
    history = wait_until(
        lambda: [past for past in [get(watched.url, "/history").json()] if len(past["total"]["time"]) > 1],
        "two samples",
    )[0]
    assert set(history["sinks"]) == {"events", "copy"}
    pages = [get(watched.url, path).text for path in ("/", "/status", "/metrics", "/history")]
    assert not any("correct-horse" in page for page in pages)


def test_rays_metrics_are_the_same(watched: Watched) -> None:
    (node,) = (node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}"

    def exported() -> set[str]:
        families = text_string_to_metric_families(get(url, "/metrics").text)
        return {
            sample.name.removeprefix("ray_")
            for family in families
            for sample in family.samples
            if sample.labels.get("pipeline") == watched.name
        }

    wanted = {"tablecast_ready", "tablecast_lag_seconds", "tablecast_records_received_total"}
    wait_until(lambda: exported() >= wanted, "Ray exports the metrics")
    assert exported() <= {metric.name for metric in METRICS}


def test_after_the_supervisors_death_the_page_is_back_on_its_port(watched: Watched) -> None:
    before = watched.status()["supervisor_pid"]
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        try:
            return bool(watched.status()["supervisor_pid"] != before)
        except (requests.RequestException, ValueError, KeyError):
            return False

    wait_until(back, "the page of the next supervisor")
    assert control.ask(watched.supervisor, "status")["web"]["url"] == watched.url
    wait_until(lambda: get(watched.url, "/ready").status_code == 200, "ready again")


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS, f"user-data-dir={folder}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(options=options, service=Service(driver))
        try:
            chrome.set_page_load_timeout(DEADLINE)
            yield chrome
        finally:
            chrome.quit()


class Box(NamedTuple):
    """A box of the flow: its class, the state that it stands for, its colour."""

    health: str
    state: str
    fill: str


def boxes(browser: webdriver.Chrome, group: str = "tables") -> dict[str, Box]:
    """Name -> box, read in one piece: the page changes all the time."""
    script = """
        return [...document.querySelectorAll(`.flow .${arguments[0]} .box`)].map((box) => [box.dataset.key,
            box.classList[1], box.dataset.state, getComputedStyle(box.querySelector("rect")).fill])"""
    return {name: Box(*rest) for name, *rest in browser.execute_script(script, group)}


def errors(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_a_killed_monitor_shows_red_and_then_recovers(watched: Watched, browser: webdriver.Chrome) -> None:
    browser.get(watched.url)
    good = {name: "good" for name in watched.tables}
    wait_until(
        lambda: {name: box.health for name, box in boxes(browser).items()} == good, "all tables are green"
    )
    assert boxes(browser, "sinks").keys() == {"events", "copy"}
    moving = "return document.querySelectorAll('.flow .lines .moving').length"
    wait_until(lambda: browser.execute_script(moving) == 4, "rows move from both tables to both sinks")
    lines = "[...document.querySelectorAll('.flow .lines .moving .bed')]"
    drawn = f"return {lines}.every((line) => line.getTotalLength() > 99)"
    assert browser.execute_script(drawn)
    assert browser.execute_script("return document.querySelectorAll('#charts .chart').length") == 4
    wait_until(lambda: browser.title.startswith("● watched"), "the title says that all is well")

    name = watched.tables[0]
    calm = boxes(browser)[name].fill
    (pid,) = (each["pid"] for each in watched.status()["tables"] if each["name"] == name)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: boxes(browser)[name].health == "bad", "the table is red")
    wait_until(lambda: boxes(browser)[name].fill != calm, "it is seen to be red")
    assert name in browser.find_element(By.ID, "problem-list").text
    wait_until(lambda: boxes(browser)[watched.tables[1]].health == "good", "the other is well")
    wait_until(lambda: boxes(browser)[name][:2] == ("good", "receiving"), "the table has recovered")
    wait_until(lambda: boxes(browser)[name].fill == calm, "and looks so")
    assert errors(browser) == []


def test_two_hundred_tables_and_text_from_strangers(browser: webdriver.Chrome) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    tables = [table(f"t{number}", received=number, records_per_second=float(number)) for number in range(198)]
    tables += [table(hostile), table("lost", "down", problem=hostile)]
    board = Board()
    board.show(
        pipeline(tables=tables, sinks=[sink("events", problem=hostile)], alerts=[hostile]), sample=True
    )
    with WebServer(board, "127.0.0.1", 0) as server:
        browser.get(server.url)
        wait_until(lambda: boxes(browser).get("lost"), "the flow is drawn")
        shown = boxes(browser)
        assert shown["lost"].health == "bad"
        assert "t197" in shown
        cells = "return document.querySelectorAll('.flow .crowd .cell').length"
        assert len(shown) + browser.execute_script(cells) == 200
        assert browser.execute_script("return document.querySelectorAll('#tables tbody tr').length") == 200
        assert hostile in browser.find_element(By.ID, "problem-list").text
        assert browser.execute_script("return document.querySelectorAll('main img, main script').length") == 0
        # Narrower than a telephone is wide: only what scrolls by itself is wider.
        browser.set_window_size(500, 900)
        wide = "return document.documentElement.scrollWidth - innerWidth"
        wait_until(lambda: browser.execute_script(wide) <= 0, "nothing sticks out")
        browser.set_window_size(1400, 1400)
        browser.find_element(By.ID, "filter").send_keys("t19")
        rows = "return [...document.querySelectorAll('#tables tbody tr')].map((row) => row.dataset.key)"
        wait_until(
            lambda: browser.execute_script(rows) == ["t19", *(f"t{number}" for number in range(190, 198))],
            "the list is filtered",
        )
        browser.find_element(By.CSS_SELECTOR, "#tables tbody .link").click()
        wait_until(lambda: browser.find_element(By.ID, "details-title").text == "t19", "details of one table")
        assert errors(browser) == []
        browser.get("about:blank")
