"""Servers that are kept outlive whoever started them, and are ended by their note, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.errors import CommandError
from cluster.servers import Kept
from protocols.kronos.client import KronosClient


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TABLECAST_HOME", str(tmp_path / "home"))


def test_a_kept_server_serves_until_somebody_ends_it() -> None:
    kept = Kept("demo")
    try:
        url = kept.serve("kronos", "--data-dir", str(kept.folder / "events"))
        client = KronosClient(url)
        assert list(client.get_streams()) == []
        client.close()
        (noted,) = json.loads((kept.folder / "processes.json").read_text())
    finally:
        ended = Kept("demo").end()  # as another process would
    assert ended == 1
    assert (
        not psutil.pid_exists(noted["pid"]) or psutil.Process(noted["pid"]).status() == psutil.STATUS_ZOMBIE
    )
    assert not kept.folder.exists()
    assert Kept("demo").end() == 0


def test_a_server_that_does_not_start_says_why() -> None:
    kept = Kept("demo")
    try:
        with pytest.raises(CommandError, match=r"kronos server did not start: tablecast: cannot serve"):
            kept.serve("kronos", "--data-dir", "/dev/null/events")
    finally:
        kept.end()


def test_a_process_that_has_taken_the_number_of_a_noted_one_is_left_alone() -> None:
    kept = Kept("demo")
    kept.folder.mkdir(parents=True)
    (kept.folder / "processes.json").write_text(json.dumps([{"pid": os.getpid(), "created": 1.0}]))
    assert kept.end() == 0
    assert not kept.folder.exists()


@pytest.mark.parametrize("name", ["..", ".", "", "../..", "a/../../b", "/"])
def test_whatever_its_name_only_what_was_kept_is_deleted(name: str) -> None:
    home = local.state_directory()
    (home / "kept").mkdir(parents=True)
    (home / "cluster.json").write_text("{}")
    assert Kept(name).end() == 0
    assert Kept(name).folder.parent == home / "kept"
    assert (home / "cluster.json").exists()
