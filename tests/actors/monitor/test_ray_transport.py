"""How a monitor reaches writers and decoders through Ray, with actors that are pretended."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
import ray

from actors.block import Block
from actors.monitor import ray_transport
from actors.monitor.ray_transport import RayTransport
from actors.monitor.transport import Task


class Call:
    """As an ObjectRef."""

    def __init__(self) -> None:
        self._future: Future[Any] = Future()
        self._future.set_result("receipt")

    def future(self) -> Future[Any]:
        return self._future


class Handle:
    """An actor that does everything at once."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *arguments: Any) -> Call:
        return Call()


def test_an_idle_transport_keeps_no_decoded_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is some memory of the object store, and of a table that rests there may be nothing next for days."""
    monkeypatch.setattr(ray, "get_actor", lambda *_: Handle())
    monkeypatch.setattr(ray_transport, "_find_alive", lambda _: Handle())
    transport = RayTransport("p", 1, 1)
    outcomes: list[Any] = []
    block = Block("t", 1, 0, 1, 0, "avro", "{}", b"x")
    transport.write("s", Task("t", block), 1, None, outcomes.append)
    assert outcomes == ["receipt"]
    assert transport._decoding
    transport.tidy()
    assert not transport._decoding
