"""What a Ray job does for a pipeline: find or create its supervisor, then tell how it goes. The pipeline outlives it.

A job server ends a job with SIGTERM, and SIGKILL three seconds later; so nothing here needs to be put in order.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors.names import NAMESPACE
from cluster.config import PipelineConfig
from cluster.config.types import Section
from cluster.errors import CommandError, NoSuchPipeline, NotReady

#: In a job's working directory, beside the pipeline file: variables that the submitter gave for it.
VARIABLES = "variables.json"

#: The folder in which Ray keeps the working directories of jobs, and deletes them.
PASSING = "runtime_resources"

#: Seconds between two lines about a pipeline, and between two looks at it.
TELL_INTERVAL = 30.0
LOOK_INTERVAL = 1.0


def variables(file: Path) -> dict[str, str]:
    """Variables for the pipeline file `file` of a job: the environment's and those that came with it, which win."""
    try:
        given: dict[str, str] = json.loads((file.parent / VARIABLES).read_text())
    except FileNotFoundError:
        given = {}
    return {**os.environ, **given}


def refuse_passing_folders(config: PipelineConfig) -> None:
    """Raise :class:`CommandError` if anything is to be kept in the working directory of a job."""
    faults = [
        f"{key}: relative to the file, which a job has in a folder that does not last; write an absolute path"
        for key, path in _paths(config)
        if PASSING in path.parts
    ]
    if faults:
        raise CommandError("\n".join(faults))


def _paths(section: Section, prefix: str = "") -> Iterator[tuple[str, Path]]:
    for key, value in section:
        for name, each in value.items() if isinstance(value, dict) else (("", value),):
            where = f"{prefix}{key}.{name}".rstrip(".")
            if isinstance(each, Section):
                yield from _paths(each, f"{where}.")
            elif isinstance(each, Path):
                yield where, each


class Follower:
    """Tells how a pipeline goes, until it ends or a later follower takes over; so there is one per pipeline."""

    def __init__(self, pipeline: str, supervisor: Any, say: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._supervisor = supervisor
        self._say = say
        self._key = f"{pipeline}/follower".encode()
        self._token = uuid.uuid4().bytes
        self._problems: dict[str, str] = {}
        self._told = 0.0

    def run(self) -> None:
        """Return when there is nothing more to tell; the pipeline goes on or has ended."""
        from ray.experimental import internal_kv

        space = NAMESPACE.encode()
        internal_kv._internal_kv_put(self._key, self._token, overwrite=True, namespace=space)
        while internal_kv._internal_kv_get(self._key, namespace=space) == self._token:
            if not self._look():
                self._say(f"{self._pipeline} has ended")
                return
            time.sleep(LOOK_INTERVAL)
        self._say(f"a later job follows {self._pipeline}; this one ends")

    def _look(self) -> bool:
        from cluster import control
        from cluster.cli.start import summary

        try:
            status = control.ask(self._supervisor, "status")
        except NoSuchPipeline:
            return False
        except NotReady as error:
            self._say(str(error))
            return True
        problems = {
            part["name"]: part["problem"]
            for part in (*status["tables"], *status["sinks"], *status["decoders"]["members"])
            if part["problem"]
        }
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                self._say(f"{name}: {problem}")
        self._problems = problems
        if time.monotonic() >= self._told + TELL_INTERVAL:
            self._told = time.monotonic()
            self._say(summary(status))
        return True
