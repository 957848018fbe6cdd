"""The cluster file is one that Ray's own validator accepts, and keeps this project's promises."""

import copy
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_config.yaml").read_text())


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("validation reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"]["decode"]["max_workers"] == config["max_workers"]


def test_ray_would_refuse_a_misspelled_key(config: dict[str, Any]) -> None:
    config["head_node_typ"] = config.pop("head_node_type")
    with pytest.raises(Exception, match="head_node_typ"):
        validate_config(prepare_config(config))


def test_every_node_type_states_its_resources(config: dict[str, Any]) -> None:
    for name, node in config["available_node_types"].items():
        assert node["resources"].get("CPU", 0) > 0, name


def test_dashboards_listen_on_loopback_only(config: dict[str, Any]) -> None:
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    hosts = [host for command in starts for host in re.findall(r"--dashboard-host=(\S+)", command)]
    assert hosts == ["127.0.0.1"]
    assert all("RAY_AUTH_MODE=" in command for command in starts if "ray start" in command)


def test_image_has_the_locked_ray(config: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert config["docker"]["image"] == f"rayproject/ray:{locked[1]}-py311"
