"""A Ray cluster on this machine: for ``tablecast up`` without an address, and inside one process for ``run``.

Detached actors die with a cluster that ``ray.init()`` started, so ``up`` runs ``ray start --head`` in a session of its
own and notes its process; the last ``down`` ends the processes of that session and no others. Everything listens
on loopback only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil

from cluster.errors import LocalClusterError

#: Read by Ray when it is imported.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

#: Set before Ray is imported. The first makes Ray use the loopback address for everything on this machine (its name
#: speaks of other systems, where that is the default); tokens guard nothing between processes of one user here.
_ENVIRONMENT = {
    LOOPBACK_ONLY: "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

#: Seconds allowed to the cluster to come up and to go down.
START_TIMEOUT = 90.0
STOP_TIMEOUT = 20.0

#: Logical CPUs of a local cluster at the least: actors reserve fractions, the machine shares the real ones.
MIN_CPUS = 8


def prepare_environment() -> None:
    """Make Ray keep to this machine. Must run before Ray is imported; settings of the user's own stay."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def cpus() -> int:
    """Logical CPUs that a local cluster offers."""
    return max(MIN_CPUS, os.cpu_count() or 1)


def state_directory() -> Path:
    """Where the local cluster is noted: ``TABLECAST_HOME``, else below the user's state directory."""
    home = os.environ.get("TABLECAST_HOME")
    if home:
        return Path(home)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tablecast"


@contextmanager
def _locked() -> Iterator[Path]:
    """The path of the note, held so that two commands at once do not start two clusters."""
    directory = state_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory / "cluster.json"


def _leader(note: Path) -> tuple[psutil.Process, str] | None:
    """The noted cluster's first process and address, if it still runs."""
    try:
        state = json.loads(note.read_text())
        process = psutil.Process(state["pid"])
        # A process id can be used again; together with its start it cannot.
        if abs(process.create_time() - state["created"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
            return process, str(state["address"])
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        pass
    return None


def running_address() -> str | None:
    """Address of the local cluster that an earlier command started, or None."""
    with _locked() as note:
        found = _leader(note)
        return found[1] if found else None


def ensure_started() -> str:
    """Start the local cluster unless it runs; returns its address. Raises :class:`LocalClusterError`."""
    with _locked() as note:
        if (found := _leader(note)) is not None:
            return found[1]
        ports = _free_ports(4)
        address = f"127.0.0.1:{ports[0]}"
        output = note.with_name("cluster.log")
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += [
            "--node-ip-address=127.0.0.1",
            f"--port={ports[0]}",
            f"--ray-client-server-port={ports[1]}",
        ]
        command += [f"--dashboard-agent-listen-port={ports[2]}", f"--metrics-export-port={ports[3]}"]
        command += [f"--num-cpus={cpus()}", "--include-dashboard=false", "--disable-usage-stats"]
        with open(output, "w") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**_ENVIRONMENT, **os.environ},
            )
        created = psutil.Process(process.pid).create_time()
        note.write_text(json.dumps({"address": address, "pid": process.pid, "created": created}))
        deadline = time.monotonic() + START_TIMEOUT
        while "Ray runtime started" not in output.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                _end_session(process.pid)
                note.unlink(missing_ok=True)
                raise LocalClusterError(f"the local Ray cluster did not start; its output is in {output}")
            time.sleep(0.1)
        return address


def stop() -> bool:
    """End the local cluster's processes. Returns whether there was one."""
    with _locked() as note:
        found = _leader(note)
        if found is not None:
            _end_session(found[0].pid)
        note.unlink(missing_ok=True)
        return found is not None


def _end_session(leader: int) -> None:
    """Terminate, then kill, every process of the session that `leader` began."""
    deadline = time.monotonic() + STOP_TIMEOUT
    how = signal.SIGTERM
    while members := _session(leader):
        if time.monotonic() > deadline or leader not in members:
            how = signal.SIGKILL
        # The leader ends its children in order; the rest only need help once it is gone.
        for pid in [leader] if how == signal.SIGTERM else members:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
        processes = []
        for pid in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        psutil.wait_procs(processes, timeout=1.0)


def _session(leader: int) -> list[int]:
    members = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getsid(process.info["pid"]) == leader:
                members.append(process.info["pid"])
        except OSError:
            continue
    return members


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for candidate in sockets:
            candidate.bind(("127.0.0.1", 0))
        return [int(candidate.getsockname()[1]) for candidate in sockets]
