"""Which tests are whole pipelines, the order in which several processes take them up, and how Hypothesis works."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does. Where nobody looks, runs should not differ.
settings.register_profile(
    "tablecast",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("tablecast")


def _is_e2e(item: pytest.Item) -> bool:
    return "e2e" in item.path.parts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole pipelines come first, a file at a time to a process: they take longest, and mostly wait."""
    items.sort(key=lambda item: not _is_e2e(item))
    for item in items:
        if _is_e2e(item):
            item.add_marker("e2e")
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL where connections are refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
