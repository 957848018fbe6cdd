"""Submission of a pipeline as a Ray job, through the job server of a cluster, and following its log.

What travels: a working directory with the pipeline file as it is written, variables unfilled, and the user's modules.
Ray shows a job's entry point, metadata and runtime environment to everybody who may ask, so none of them holds a
value; what is in the working directory only who may run code on the cluster can see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from actors.backoff import Backoff
from cluster.config import ConfigError, parse
from cluster.config.yaml_source import UNSET
from cluster.errors import CommandError, NoCluster
from cluster.job import PASSING, VARIABLES, refuse_passing_folders

#: Seconds allowed to one request, to silence in a log (the job tells something every 30 s), and to a job server that is
#: away while its job is followed.
REQUEST_TIMEOUT = 30.0
SILENCE_TIMEOUT = 90.0
AWAY_TIMEOUT = 600.0

logging.getLogger("ray.dashboard").setLevel(logging.ERROR)  # it tells of every upload and connection

#: Packages of our own, which a module of that name would hide.
_OWN = frozenset(("tablecast", "actors", "cluster", "protocols"))


class JobServer:
    """The job server at `url`, ``http://HOST:PORT``: the address of the cluster's dashboard.

    With ``RAY_AUTH_MODE=token`` in the environment, Ray takes the token from ``RAY_AUTH_TOKEN``, the file named by
    ``RAY_AUTH_TOKEN_PATH``, or ``~/.ray/auth_token``. Raises :class:`NoCluster`.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise NoCluster("--address: not a job server; write http://HOST:8265, the dashboard's address")
        os.environ["RAY_API_SERVER_ADDRESS"] = self.url = url  # or RAY_ADDRESS would win over the argument
        self._client = self._try(lambda: _Client(url))

    def submit(self, folder: Path, command: str) -> str:
        """Run `command` in a copy of `folder` on the cluster; returns the job's id."""
        environment = {"working_dir": str(folder)}
        return str(self._try(lambda: self._client.submit_job(entrypoint=command, runtime_env=environment)))

    def details(self, job: str) -> JobDetails:
        """The job's state."""
        return self._try(lambda: self._client.get_job_info(job))

    def follow(self, job: str, say: Callable[[str], None]) -> JobDetails:
        """Give the job's log to `say` as it grows, through interruptions, until the job has ended."""
        return asyncio.run(self._follow(job, say))

    async def _follow(self, job: str, say: Callable[[str], None]) -> JobDetails:
        told, failures, backoff, heard = 0, 0, Backoff(), time.monotonic()
        while True:
            at = 0  # every connection begins at the beginning of the log
            chunks = self._client.tail_job_logs(job)
            try:
                while True:
                    text = await asyncio.wait_for(anext(chunks), SILENCE_TIMEOUT)
                    if at + len(text) > told:
                        say(text[max(0, told - at) :])
                        told = at + len(text)
                    at += len(text)
                    failures, heard = 0, time.monotonic()
            except (StopAsyncIteration, RuntimeError, OSError, TimeoutError, aiohttp.ClientError):
                pass  # why it ended is asked for next
            try:
                details = self.details(job)
                if details.status.is_terminal():
                    return details
                heard = time.monotonic()
            except _NoAnswer:
                if time.monotonic() > heard + AWAY_TIMEOUT:
                    raise
            failures += 1
            await asyncio.sleep(backoff.delay(failures))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except AuthenticationError as error:
            raise NoCluster(
                f"{self.url} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise _NoAnswer(
                f"no job server answers at {self.url}; check --address, or forward the port with `ray dashboard`"
            ) from error
        except (RuntimeError, ValueError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise NoCluster(f"the job server at {self.url} refuses: {line[:300]}") from error


class _NoAnswer(NoCluster):
    """It may be back later."""


class _Client(JobSubmissionClient):  # type: ignore[misc] # Ray's annotations are not followed
    """Ray's client, whose requests would wait for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": REQUEST_TIMEOUT, **options})


def check(file: Path, given: Mapping[str, str]) -> None:
    """Find the faults of `file` that can be found here: all but variables that are to be set on the cluster.

    Raises :class:`ConfigError` or :class:`CommandError`.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError([f"{file}:1: cannot be read ({reason}); check the path"]) from None
    try:
        parse(text, str(file), {**os.environ, **given})
    except ConfigError as error:
        faults = [fault for fault in error.faults if UNSET not in fault]
        if faults:
            raise ConfigError(faults) from None
    else:
        refuse_passing_folders(parse(text, f"/{PASSING}/{file.name}", {**os.environ, **given}))


def submit(
    server: JobServer, file: Path, given: Mapping[str, str], modules: Iterable[Path], dry_run: bool
) -> str:
    """Submit the pipeline file with the variables `given` and the user's `modules`; returns the job's id.

    Raises :class:`CommandError`, :class:`NoCluster`.
    """
    with tempfile.TemporaryDirectory(prefix="tablecast-") as name:
        folder = Path(name)
        shutil.copyfile(file, folder / file.name)
        if given:
            # Ray names the package by a hash of what is in it: the salt keeps that from telling a weak password.
            values = {**given, "": secrets.token_hex(16)}
            (folder / VARIABLES).write_text(json.dumps(values))
        for module in modules:
            _copy_module(module, folder)
        return server.submit(folder, f"tablecast job {shlex.quote(file.name)}{' --dry-run' * dry_run}")


def _copy_module(module: Path, folder: Path) -> None:
    target = folder / module.name
    if module.stem in _OWN or target.exists():
        raise CommandError(f"--module {module}: the name {module.name} is taken; rename it")
    try:
        if module.is_dir():
            shutil.copytree(module, target, ignore=shutil.ignore_patterns("__pycache__", ".git", ".venv"))
        else:
            shutil.copyfile(module, target)
    except (OSError, shutil.Error) as error:
        raise CommandError(f"--module {module}: cannot be read ({error}); check the path") from None
