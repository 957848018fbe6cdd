"""The cluster files are ones that Ray's own validator accepts, and keep this project's promises."""

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


@pytest.fixture
def local() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_config.local.yaml").read_text())


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


@pytest.mark.parametrize("key", ["head_node", "worker_nodes", "min_workers", "initial_workers"])
def test_ray_would_refuse_a_key_of_former_times(config: dict[str, Any], key: str) -> None:
    config[key] = 1 if key.endswith("workers") else {}
    with pytest.raises(Exception, match=key):
        validate_config(config)


def test_ray_accepts_the_one_for_machines_that_one_has(local: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(local))
    validate_config(prepared)
    assert "available_node_types" not in local
    assert prepared["max_workers"] == len(local["provider"]["worker_ips"])


@pytest.mark.parametrize("key", ["head_ip", "worker_ips"])
def test_ray_would_refuse_machines_without(local: dict[str, Any], key: str) -> None:
    del local["provider"][key]
    with pytest.raises(Exception, match=r"head_ip|worker_ips"):
        prepare_config(local)


def test_both_start_nodes_alike(config: dict[str, Any], local: dict[str, Any]) -> None:
    assert config["file_mounts"] == local["file_mounts"]
    assert config["rsync_exclude"] == local["rsync_exclude"]
    for cluster in (config, local):
        head, worker = (cluster[f"{kind}_start_ray_commands"][1] for kind in ("head", "worker"))
        assert ". ~/tablecast/cluster.env" in head
        assert "--port=6379" in head
        assert "$RAY_HEAD_IP:6379" in worker
        assert "--constraint ~/tablecast/requirements.lock" in cluster["setup_commands"][-1]


def test_every_node_type_states_its_resources(config: dict[str, Any]) -> None:
    for name, node in config["available_node_types"].items():
        assert node["resources"].get("CPU", 0) > 0, name
        assert all(type(amount) is int for amount in node["resources"].values()), name


@pytest.mark.parametrize("which", ["config", "local"])
def test_dashboards_listen_on_loopback_only(request: pytest.FixtureRequest, which: str) -> None:
    cluster = request.getfixturevalue(which)
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    hosts = [host for command in starts for host in re.findall(r"--dashboard-host=(\S+)", command)]
    assert hosts == ["127.0.0.1"]
    assert all("RAY_AUTH_MODE=" in command for command in starts if "ray start" in command)


def test_image_has_the_locked_ray(config: dict[str, Any]) -> None:
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert config["docker"]["image"] == f"rayproject/ray:{locked[1]}-py311"
