"""A data source: the pages of a made-up service, from where the state says. Run by `datasource_resume.py`."""

from __future__ import annotations

import time
from typing import Any

from tablecast.panoply import DataSource, PanoplyException

CONFIG = {
    "title": "Issues",
    "params": [
        {"name": "user", "title": "User", "help": "Whose issues to read"},
        {"name": "token", "title": "Token", "help": "From the settings of the service"},
    ],
}

ISSUES = 3000


class Stream(DataSource):
    """Reads issues page by page."""

    def __init__(self, source: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(source, options)
        if not source["token"]:
            raise PanoplyException("the service wants a token", retryable=False)
        self._next = source.get("state", {}).get("next", 0)
        self.log("reading from", self._next, "on")

    def read(self, batch_size: int | None = None) -> list[dict[str, Any]] | None:
        if self._next >= ISSUES:
            return None
        time.sleep(0.02)  # the service takes its time
        page = range(self._next, min(self._next + (batch_size or 100), ISSUES))
        self._next = page.stop
        # Once the rows that name this state are stored, a new start goes on behind them.
        self.state(f"page to {page.stop}", {"next": page.stop})
        self.progress(page.stop, ISSUES, f"{page.stop:,} issues read")
        return [
            {
                "number": n,
                "author": self.source["user"],
                "open": n % 3 == 0,
                "__state": f"page to {page.stop}",
            }
            for n in page
        ]
