"""Connecting to a cluster, as far as no cluster is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

PROGRAM = """
import sys, ray
from cluster import control
from cluster.errors import NoCluster
try:
    control.connect(sys.argv[1])
except NoCluster as error:
    print(error)
"""


def test_a_driver_that_imported_ray_too_early_is_told_at_once() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", PROGRAM, f"127.0.0.1:{listener.getsockname()[1]}"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    assert "before `import ray`" in done.stdout
    assert len(done.stdout.splitlines()) == 1
