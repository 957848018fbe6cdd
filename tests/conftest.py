from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("tablecast", deadline=None)
settings.load_profile("tablecast")


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL where connections are refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
