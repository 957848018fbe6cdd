"""One Ray cluster per test session, embedded servers in processes of their own, and pipelines of unique names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import control
from cluster.config import PipelineConfig
from cluster.servers import embedded_server
from protocols.kinetica.client import KineticaClient
from protocols.kronos.client import KronosClient
from tests.cluster.statuses import check_status

#: Seconds within which anything a test waits for has to happen. Generous: the machine may be busy.
DEADLINE = 180.0

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    control.connect(own=True)
    yield
    control.disconnect()


@pytest.fixture(scope="session")
def kinetica_url() -> Iterator[str]:
    with embedded_server("kinetica", "--monitor-port", "0") as url:
        yield url


@pytest.fixture(scope="session")
def kronos_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("kronos")
    with embedded_server(
        "kronos", "--data-dir", str(folder), "--namespace", "kronos", "--namespace", "other"
    ) as url:
        yield url


@pytest.fixture
def kinetica(kinetica_url: str) -> Iterator[KineticaClient]:
    with KineticaClient(kinetica_url) as client:
        yield client


@pytest.fixture
def kronos(kronos_url: str) -> Iterator[KronosClient]:
    client = KronosClient(kronos_url)
    yield client
    client.close()


@pytest.fixture
def unique() -> str:
    """A word that no other test uses, for names of tables and pipelines."""
    return f"t{next(_numbers)}"


@pytest.fixture
def make_config(kinetica_url: str, kronos_url: str, tmp_path: Path) -> Callable[..., PipelineConfig]:
    """Makes a pipeline of the given tables into one Kronos sink; keywords replace top-level keys of the file."""

    def make(name: str, tables: list[str | dict[str, Any]], **keys: Any) -> PipelineConfig:
        values = {
            "pipeline": name,
            "source": {"kinetica": {"url": kinetica_url}},
            "tables": [{"name": table} if isinstance(table, str) else table for table in tables],
            "sinks": {"events": {"kronos": {"url": kronos_url}}},
            "decoders": {"min": 2},
            "spool": {"path": str(tmp_path / "spool"), "min_free": 0},
        }
        return PipelineConfig.model_validate(values | keys)

    return make


@pytest.fixture
def start(ray_cluster: None) -> Iterator[Callable[[PipelineConfig], Any]]:
    """Starts pipelines, gives their supervisors, and ends at the end those that still run."""
    started: list[str] = []

    def begin(config: PipelineConfig) -> Any:
        supervisor = control.start_pipeline(config)
        started.append(config.pipeline)
        assert control.wait_ready(supervisor, DEADLINE), control.ask(supervisor, "status")
        return supervisor

    yield begin
    for name in started:
        if name in control.pipelines():
            check_status(control.ask(control.find(name), "status"))
            control.stop_pipeline(name, 0.0)


def wait_until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Poll until `condition` gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.05)
