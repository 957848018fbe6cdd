"""What a supervisor remembers over its own death: kept in Ray's cluster-wide key-value store.

That store lives exactly as long as the detached actors do: as long as the cluster.
"""

from __future__ import annotations

import json
from typing import Any

from ray.experimental import internal_kv

from actors.names import NAMESPACE


class Memory:
    """The memory of one pipeline's supervisor: one JSON object."""

    def __init__(self, pipeline: str) -> None:
        self._key = f"{pipeline}/supervisor".encode()
        self.incarnation = 0

    def load(self) -> dict[str, Any]:
        """What was saved last; empty at first."""
        value = internal_kv._internal_kv_get(self._key, namespace=NAMESPACE.encode())
        remembered: dict[str, Any] = json.loads(value) if value else {}
        self.incarnation = int(remembered.pop("incarnation", 0))
        return remembered

    def save(self, values: dict[str, Any]) -> None:
        """Replace what is remembered; the greatest incarnation given out goes along."""
        value = json.dumps({**values, "incarnation": self.incarnation}).encode()
        internal_kv._internal_kv_put(self._key, value, overwrite=True, namespace=NAMESPACE.encode())

    def forget(self) -> None:
        """The pipeline has ended."""
        internal_kv._internal_kv_del(self._key, namespace=NAMESPACE.encode())
