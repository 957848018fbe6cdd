"""A data source for tests: numbers from 0 on, a few at a time, that goes on from its state."""

from __future__ import annotations

import threading
from typing import Any

from tablecast.panoply import DataSource

CONFIG = {
    "title": "Numbers",
    "params": [
        {"name": "total", "title": "How many", "help": "A number"},
        {"name": "token", "title": "Token", "help": "Any text"},
        {"name": "pause", "required": False, "secret": False},
    ],
}


class Stream(DataSource):
    def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(source, options)
        self.next: int = source.get("state", {}).get("next", 0)

    def read(self, batch_size: int | None = None) -> list[dict[str, Any]] | None:
        total = self.source["total"]
        if self.next >= total:
            return None
        threading.Event().wait(self.source.get("pause", 0.0))
        numbers = range(self.next, min(self.next + (batch_size or 1), total))
        self.next = numbers.stop
        self.state(f"at-{self.next}", {"next": self.next})
        self.progress(self.next, total, f"{self.next:,} numbers with {self.source['token']}")
        return [{"n": n, "even": n % 2 == 0, "__state": f"at-{self.next}"} for n in numbers]
