from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import v3io.aio.dataplane
import v3io.dataplane

import tablecast.v3io
from protocols.v3io.server import V3ioServer

KEY = "access-key"


class QuietLogger:
    """What the official client logs to, in place of standard output."""

    def __getattr__(self, name: str) -> object:
        return lambda *args, **kwargs: logging.getLogger("v3io").debug("%s %s", name, args)


@pytest.fixture(scope="module")
def server() -> Iterator[V3ioServer]:
    with V3ioServer(port=0, access_key=KEY) as running:
        yield running


@pytest.fixture(params=[v3io, tablecast.v3io], ids=["official", "tablecast"])
def package(request: pytest.FixtureRequest) -> Any:
    """The official package, then ours, which has its names."""
    return request.param


@pytest.fixture
def client(server: V3ioServer, package: Any) -> Iterator[Any]:
    running = package.dataplane.Client(logger=QuietLogger(), endpoint=server.url, access_key=KEY)
    yield running
    running.close()
