"""Every name, argument and default of the official monitor client is here, or docs/compatibility.md says why not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import gpudb
import pytest

from tablecast.compat import GPUdbTableMonitor

DOCS = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()

#: Callables of ``GPUdbTableMonitor``: path -> names and defaults of the arguments (``...``: none).
CALLABLES: dict[str, dict[str, Any]] = {
    "Client": {"db": ..., "table_name": ..., "callback_list": ..., "options": None},
    "Client.start_monitor": {"self": ...},
    "Client.stop_monitor": {"self": ...},
    "Options": {"_dict": None},
    "Options.default": {},
    "Options.as_json": {"self": ...},
    "Options.as_dict": {"self": ...},
    "Callback": {"callback_type": ..., "event_callback": ..., "error_callback": None, "event_options": None},
    "Callback.InsertDecodedOptions": {"decode_failure_mode": None},
    "Callback.Type.event_types": {},
    "Callback.Type.monitor_types": {},
}

#: Properties: path -> whether they can be set.
PROPERTIES = {
    "Client.logging_level": True,
    "Options.inactivity_timeout": True,
    "Options.max_retries": True,
    "Options.wait_interval": True,
    "Options.monitor_port": True,
    "Callback.callback_type": False,
    "Callback.event_callback": False,
    "Callback.error_callback": False,
    "Callback.event_options": False,
    "Callback.InsertDecodedOptions.decode_failure_mode": True,
}

ENUMS = {
    "Callback.Type": {
        "INSERT_DECODED": 1,
        "INSERT_RAW": 2,
        "DELETED": 3,
        "UPDATED": 4,
        "TABLE_ALTERED": 5,
        "TABLE_DROPPED": 6,
    },
    "Callback.InsertDecodedOptions.DecodeFailureMode": {"ABORT": 1, "SKIP": 2},
}

#: Attributes of instances.
ATTRIBUTES = ("db", "table_name", "options", "type_id", "type_schema", "full_url", "task_list", "_logger")

#: What the official package has and we have not; docs/compatibility.md says why.
ABSENT = ("Client._TableEvent",)

OFFICIAL: Any = gpudb.GPUdbTableMonitor


def find(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


@pytest.mark.parametrize("path", CALLABLES)
def test_callables(path: str) -> None:
    for root, exact in ((OFFICIAL, True), (GPUdbTableMonitor, False)):
        parameters = list(inspect.signature(find(root, path)).parameters.values())
        # Ours may take more, by keyword.
        plain = {
            each.name: ... if each.default is each.empty else each.default
            for each in parameters
            if exact or each.kind is not each.KEYWORD_ONLY
        }
        assert list(plain.items()) == list(CALLABLES[path].items())


@pytest.mark.parametrize("path", PROPERTIES)
def test_properties(path: str) -> None:
    for root in (OFFICIAL, GPUdbTableMonitor):
        found = find(root, path)
        assert isinstance(found, property)
        assert (found.fset is not None) is PROPERTIES[path]


@pytest.mark.parametrize("path", ENUMS)
def test_enums(path: str) -> None:
    official, ours = (
        {each.name: each.value for each in find(root, path)} for root in (OFFICIAL, GPUdbTableMonitor)
    )
    assert official == ENUMS[path]
    assert ours.items() >= official.items()


def test_lists_of_types() -> None:
    for name in ("event_types", "monitor_types"):
        official, ours = (
            {each.name for each in getattr(root.Callback.Type, name)()}
            for root in (OFFICIAL, GPUdbTableMonitor)
        )
        assert ours == official | {"INSERT_BATCH"}


def test_defaults_and_units_of_options() -> None:
    assert GPUdbTableMonitor.Options().as_dict() == OFFICIAL.Options().as_dict()
    given = {"inactivity_timeout": 0.5, "max_retries": 1, "wait_interval": 2, "monitor_port": 9003}
    assert GPUdbTableMonitor.Options(_dict=given).as_json() == OFFICIAL.Options(_dict=given).as_json()
    assert issubclass(GPUdbTableMonitor.Callback.InsertDecodedOptions, GPUdbTableMonitor.Callback.Options)


def test_nothing_public_is_forgotten() -> None:
    """Walks the official class: whatever is public is in one of the tables, or documented as absent."""

    def walk(owner: Any, path: str) -> list[str]:
        names = []
        for name, member in vars(owner).items():
            if name.startswith("_") and name != "_TableEvent":
                continue
            full = f"{path}{name}"
            names.append(full)
            if inspect.isclass(member) and full not in ENUMS and full not in ABSENT:
                names += walk(member, f"{full}.")
        return names

    known = {
        *CALLABLES,
        *PROPERTIES,
        *ENUMS,
        *ABSENT,
        "Callback.Options",
        *(f"{path}.{name}" for path, names in ENUMS.items() for name in names),
    }
    assert set(walk(OFFICIAL, "")) <= known


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_absent_is_documented(name: str) -> None:
    section = re.search(r"^## Kinetica\n(.*?)(?=^## |\Z)", DOCS, re.S | re.M)
    assert section
    assert f"`{name}`" in section[1]
