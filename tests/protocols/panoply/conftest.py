"""An SQS server of the moto package, and a queue on it as Panoply makes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sqs import Queue, serve


@pytest.fixture
def queue() -> Iterator[Queue]:
    with serve() as queue:
        yield queue
