"""What all benchmarks share: a table on the terminal, and the same figures as one JSON object in the last
line."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def machine() -> dict[str, Any]:
    """The machine as far as it explains the figures."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def report(
    name: str, rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float], as_json: bool = False
) -> None:
    """Print a benchmark's rows and ratios.

    Args:
        name: the benchmark's name.
        rows: the table's lines; the first row's keys are the headings.
        ratios: for example ``{"decode tablecast/gpudb": 5.3}``.
        as_json: print one JSON object as the last line too.
    """
    console = Console()
    table = Table(*rows[0], title=name)
    for row in rows:
        table.add_row(*map(_text, row.values()))
    console.print(table)
    for what, ratio in ratios.items():
        console.print(f"{what}: {ratio:.2f}", highlight=False)
    if as_json:
        print(
            json.dumps({"benchmark": name, "rows": list(rows), "ratios": dict(ratios), "machine": machine()})
        )


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
