from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.kronos.server import EventStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with EventStore(data_dir=tmp_path / "store", port=0, namespaces=("kronos", "other")) as running:
        yield running
