from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import v3io.dataplane

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


@pytest.fixture
def official(server: V3ioServer) -> Iterator[v3io.dataplane.Client]:
    client = v3io.dataplane.Client(logger=QuietLogger(), endpoint=server.url, access_key=KEY)
    yield client
    client.close()
