"""Which tests are whole pipelines, and how Hypothesis works."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cluster import local

local.prepare_environment()  # before a test imports Ray

# How long an example takes depends on what else the machine does. Where nobody looks, runs should not differ.
settings.register_profile(
    "tablecast",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("tablecast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("e2e")


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL where connections are refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
