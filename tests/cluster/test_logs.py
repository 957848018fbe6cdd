"""Logs are read from files that are turned over and deleted meanwhile, and chosen by whom or what they are about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.logs import Choice, Found, merged, read_folder, text


def line(at: float, actor: str = "monitor/t", level: str = "info", **fields: Any) -> dict[str, Any]:
    return {
        "time": at,
        "level": level,
        "actor": actor,
        "pid": 1,
        "logger": "l",
        "message": f"m{at:g}",
        **fields,
    }


def write(path: Path, *lines: dict[str, Any], mode: str = "a") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, mode) as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)


@pytest.mark.parametrize(
    ("of", "taken"),
    [
        (None, "abcde"),
        ("monitor/t", "a"),
        ("monitor", "ab"),
        ("t", "ac"),
        ("events", "de"),
        ("writer/events", "d"),
        ("supervisor", "ce"),
        ("nobody", ""),
    ],
)
def test_an_actor_a_kind_a_table_or_a_sink_is_chosen(of: str | None, taken: str) -> None:
    records = {
        "a": line(1, "monitor/t", table="t"),
        "b": line(2, "monitor/u", table="u"),
        "c": line(3, "supervisor", table="t"),
        "d": line(4, "writer/events"),
        "e": line(5, "supervisor", sink="events"),
    }
    assert "".join(name for name, record in records.items() if Choice(of).takes(record)) == taken


def test_levels_are_at_least() -> None:
    levels = ("debug", "info", "warning", "error")
    assert [level for level in levels if Choice(level="warning").takes(line(1, level=level))] == [
        "warning",
        "error",
    ]


def test_the_last_of_several_files_then_what_is_new(tmp_path: Path) -> None:
    folder = tmp_path / "tablecast" / "p"
    one, two = folder / "monitor%2Ft-1.log", folder / "decoder%2F0-2.log"
    write(one, line(1), line(3))
    write(two, line(2, "decoder/0"), line(4, "decoder/0"))
    first = read_folder(tmp_path, "p", Choice(), 3)
    assert [record["time"] for record in first.records] == [2, 3, 4]
    write(one, line(5))
    with open(two, "a") as file:
        file.write('{"time": 6, "level": "in')  # half a line
    second = read_folder(tmp_path, "p", Choice(), None, first.ends)
    assert [record["time"] for record in second.records] == [5]
    with open(two, "a") as file:
        file.write('fo", "actor": "decoder/0", "message": "whole"}\n')
    write(folder / "writer%2Fs-3.log", line(7, "writer/s"))  # a new file
    third = read_folder(tmp_path, "p", Choice(), None, second.ends)
    assert [record["time"] for record in third.records] == [6, 7]
    assert read_folder(tmp_path, "p", Choice(), None, third.ends).records == []


def test_a_file_that_was_turned_over_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "tablecast" / "p" / "monitor%2Ft-1.log"
    write(path, line(1), line(2))
    first = read_folder(tmp_path, "p", Choice(), 1)
    write(path, line(3))
    path.rename(path.with_name(path.name + ".1"))
    write(path, line(4))
    second = read_folder(tmp_path, "p", Choice(), None, first.ends)
    assert [record["time"] for record in second.records] == [3, 4]
    assert [record["time"] for record in read_folder(tmp_path, "p", Choice(), 9).records] == [1, 2, 3, 4]


def test_nodes_that_share_a_folder_are_heard_once() -> None:
    here, there = Found([line(1), line(3)], {}, (1, 1)), Found([line(2)], {}, (1, 2))
    assert [record["time"] for record in merged([here, there, here])] == [1, 2, 3]


def test_no_folder_no_records(tmp_path: Path) -> None:
    assert read_folder(tmp_path, "p", Choice(), 9).records == []


def test_for_people_with_what_it_is_about_and_a_traceback() -> None:
    shown = text(
        line(1.25, level="error", table="t", epoch=7, offset=12, sink="s", trace="Traceback\n  x")
    ).splitlines()
    assert shown[0].endswith("01.250 ERROR   monitor/t: m1.25  [table=t epoch=7 offset=12 sink=s]")
    assert shown[1:] == ["    Traceback", "      x"]
