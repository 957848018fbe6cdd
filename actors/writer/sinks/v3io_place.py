"""Where a V3IO sink puts what it has, whatever its form."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.v3io.client import V3ioClient


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a container.

    Attributes:
        pipeline: first part of every origin.
        client: it is the sink's, which closes it.
        path: of the folder, without slashes at its ends; below it is one of each feed.
        connections: most requests at once.
        timeout: seconds allowed to one request.
    """

    pipeline: str
    client: V3ioClient
    container: str
    path: str
    connections: int
    timeout: float
