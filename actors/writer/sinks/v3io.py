"""The V3IO sink: each feed as a stream, as a table of items, or as a folder of objects, below `path` in a container.

What each is made of is said in ``v3io_streams.py``, ``v3io_items.py`` and ``v3io_objects.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.writer.sinks.base import Sink
from actors.writer.sinks.v3io_items import V3ioItems
from actors.writer.sinks.v3io_objects import V3ioObjects
from actors.writer.sinks.v3io_place import Place
from actors.writer.sinks.v3io_streams import V3ioStreams
from protocols.v3io.client import V3ioClient

_FORMS: Mapping[str, Callable[..., Sink]] = {"stream": V3ioStreams, "kv": V3ioItems, "objects": V3ioObjects}


def v3io_sink(
    pipeline: str,
    url: str,
    container: str,
    access_key: str | None = None,
    connections: int = 8,
    timeout: float = 30.0,
    ca_file: str | None = None,
    **forms: Mapping[str, Any] | None,
) -> Sink:
    """Make the sink of one form, ``stream``, ``kv`` or ``objects``, with its settings.

    Args:
        pipeline: first part of every origin.
        url: base URL of the data plane.
        container: where everything goes.
        access_key: sent with each request; None or empty for servers that ask for none.
        connections: most requests at once.
        timeout: seconds allowed to one request.
        ca_file: PEM file of trusted authorities; None for the usual ones.
    """
    client = V3ioClient(
        url, access_key or None, timeout=timeout, connections=connections, verify=ca_file or True
    )
    ((form, settings),) = ((form, dict(given)) for form, given in forms.items() if given is not None)
    path = settings.pop("path").strip("/")
    return _FORMS[form](Place(pipeline, client, container, path, connections, timeout), **settings)
