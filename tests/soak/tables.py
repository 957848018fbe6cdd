"""200 tables in one pipeline: up within 60 seconds and 6 GiB in total on two cores, and every row of each delivered.

``scripts/soak tables [OPTION...]`` runs ``benchmarks/tables.py`` with these options, and judges its figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: Seconds until all tables receive, and MiB of all processes.
MOST_SECONDS = 60.0
MOST_MIB = 6 * 1024

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tables.py"


def main() -> None:
    command = [sys.executable, str(BENCHMARK), "--json", *sys.argv[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=False)
    print(done.stdout)
    if done.returncode:
        sys.exit(done.returncode)
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    faults = []
    if row["seconds_until_all_receive"] > MOST_SECONDS:
        faults.append(f"up after {row['seconds_until_all_receive']:.0f} s, not {MOST_SECONDS:.0f} s")
    if row["memory_mib"] > MOST_MIB:
        faults.append(f"{row['memory_mib']:,.0f} MiB, not {MOST_MIB:,}")
    print("; ".join(faults) or "within bounds")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
