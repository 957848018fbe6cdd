"""One table server per test module, the official client connected to it, and tables with names of their own."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gpudb
import pytest

from protocols.kinetica.server import TableServer

from .scripted import Server

_numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """The official client logs a line per message and failure."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    with TableServer(port=0, monitor_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def db(server: TableServer) -> gpudb.GPUdb:
    return gpudb.GPUdb(host=server.url)


@pytest.fixture
def make_table(db: gpudb.GPUdb) -> Callable[..., Any]:
    """Makes a ``GPUdbTable`` of the columns given, such as ``["id", "int", "primary_key"]``, under a new name."""

    def make(*columns: list[str]) -> Any:
        return gpudb.GPUdbTable([list(column) for column in columns], f"ki_home.t{next(_numbers)}", db=db)

    return make


@pytest.fixture
def make_server() -> Iterator[Callable[[], Server]]:
    """Makes servers that answer as they are told to."""
    made: list[Server] = []

    def make() -> Server:
        made.append(Server())
        return made[-1]

    yield make
    for server in made:
        server.stop()
