"""The Kubernetes manifests and the image. No CRD is installed here to validate against, so what is checked is written
down: the fields of ``ray.io/v1`` RayCluster (kuberay, ``ray-operator/apis/ray/v1/raycluster_types.go``) that are used,
their types, and that the parts fit one another.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import parse
from cluster.job import refuse_passing_folders

DEPLOY = Path(__file__).parents[2] / "deploy"
LOCK = (DEPLOY.parent / "requirements.lock").read_text()

#: Field -> type, of the structs of that names; everything else would be refused or, worse, dropped by the API server.
RAY_CLUSTER = {
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
}
HEAD_GROUP = {"rayStartParams": dict, "template": dict}
WORKER_GROUP = {
    **HEAD_GROUP,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
}
AUTOSCALER = {"upscalingMode": str, "idleTimeoutSeconds": int, "env": list}
POD = {
    "terminationGracePeriodSeconds": int,
    "securityContext": dict,
    "containers": list,
    "volumes": list,
    "restartPolicy": str,
}
CONTAINER = {
    "name": str,
    "image": str,
    "command": list,
    "env": list,
    "envFrom": list,
    "lifecycle": dict,
    "ports": list,
    "resources": dict,
    "volumeMounts": list,
}


def documents() -> dict[str, Any]:
    texts = [(DEPLOY / "kuberay" / name).read_text() for name in ("cluster.yaml", "pipeline.yaml")]
    return {each["kind"]: each for text in texts for each in yaml.safe_load_all(text)}


@pytest.fixture
def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = documents()["RayCluster"]["spec"]
    return spec


@pytest.fixture
def submitter() -> dict[str, Any]:
    pod: dict[str, Any] = documents()["Job"]["spec"]["template"]["spec"]
    return pod


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods() -> Iterator[dict[str, Any]]:
    found = documents()
    yield from (group["template"]["spec"] for group in groups(found["RayCluster"]["spec"]))
    yield found["Job"]["spec"]["template"]["spec"]


def containers() -> Iterator[dict[str, Any]]:
    for pod in pods():
        yield from pod["containers"]


def typed(values: dict[str, Any], fields: dict[str, type]) -> None:
    for key, value in values.items():
        assert type(value) is fields[key], f"{key}: {value!r}"


def test_the_api_versions() -> None:
    assert {kind: each["apiVersion"] for kind, each in documents().items()} == {
        "PersistentVolumeClaim": "v1",
        "RayCluster": "ray.io/v1",
        "ConfigMap": "v1",
        "Job": "batch/v1",
    }


def test_only_known_fields_of_their_types(cluster: dict[str, Any]) -> None:
    typed(cluster, RAY_CLUSTER)
    typed(cluster["autoscalerOptions"], AUTOSCALER)
    typed(cluster["headGroupSpec"], HEAD_GROUP)
    for group in cluster["workerGroupSpecs"]:
        typed(group, WORKER_GROUP)
        assert group.keys() == WORKER_GROUP.keys()
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in pods():
        typed(pod, POD)
    for container in containers():
        typed(container, CONTAINER)
    assert cluster["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")


def test_values_that_kubernetes_wants_as_text_are_text(cluster: dict[str, Any]) -> None:
    for group in groups(cluster):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for container in containers():
        assert all(isinstance(entry.get("value", ""), str) for entry in container["env"])
        assert all(isinstance(part, str) for part in container.get("command", []))


def test_every_mount_has_its_volume_and_every_secret_is_one_that_is_made() -> None:
    text = (DEPLOY / "kuberay" / "cluster.yaml").read_text()
    made = set(re.findall(r"kubectl create secret generic (\S+)", text))
    named = set()
    for pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            named |= {entry["secretRef"]["name"] for entry in container.get("envFrom", [])}
            named |= {e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"] if "valueFrom" in e}
    assert named == made


def test_every_part_uses_the_token(cluster: dict[str, Any]) -> None:
    environments = [container["env"] for container in containers()]
    for entries in (*environments, cluster["autoscalerOptions"]["env"]):
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in entries
        assert "RAY_AUTH_TOKEN" in {entry["name"] for entry in entries}


def test_a_head_that_ends_drains_first(cluster: dict[str, Any]) -> None:
    pod = cluster["headGroupSpec"]["template"]["spec"]
    (head,) = pod["containers"]
    assert head["lifecycle"]["preStop"]["exec"]["command"] == ["tablecast-drain"]
    assert "/deploy/drain /usr/local/bin/tablecast-drain" in (DEPLOY / "Dockerfile").read_text()
    (seconds,) = [int(entry["value"]) for entry in head["env"] if entry["name"] == "DRAIN_SECONDS"]
    assert pod["terminationGracePeriodSeconds"] >= seconds + 30


def test_cpus_that_ray_counts_are_those_that_the_pod_has(cluster: dict[str, Any]) -> None:
    head = cluster["headGroupSpec"]
    assert (
        head["rayStartParams"]["num-cpus"]
        == head["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    )


def test_the_pipeline_is_one_and_its_spool_is_on_the_volume(cluster: dict[str, Any]) -> None:
    ((name, text),) = documents()["ConfigMap"]["data"].items()
    config = parse(text, f"/runtime_resources/{name}", {})
    refuse_passing_folders(config)
    (mount,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert config.spool.path == Path(mount["mountPath"])


def test_the_submitter_submits_that_file_to_that_cluster(submitter: dict[str, Any]) -> None:
    (container,) = submitter["containers"]
    verb, file, option, url, *_ = container["command"][1:]
    assert (verb, option) == ("submit", "--address")
    assert url == f"http://{documents()['RayCluster']['metadata']['name']}-head-svc:8265"
    (mount,) = container["volumeMounts"]
    assert file == f"{mount['mountPath']}/pipeline.yaml"


def test_one_image_of_this_version_with_the_locked_ray(cluster: dict[str, Any]) -> None:
    version = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"]
    assert {container["image"] for container in containers()} == {f"tablecast:{version}"}
    ray = re.search(r"^ray==(.+)$", LOCK, re.MULTILINE)
    assert ray is not None
    assert cluster["rayVersion"] == ray[1]
    assert f"FROM rayproject/ray:{ray[1]}-py311\n" in (DEPLOY / "Dockerfile").read_text()


def test_all_that_the_package_is_built_from_gets_into_the_image() -> None:
    wanted = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    needed = {
        *wanted["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
        "pyproject.toml",
        "requirements.lock",
    }
    needed |= {wanted["project"]["readme"], *wanted["project"]["license-files"], "deploy/drain"}
    let_in = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert let_in == needed
    assert all((DEPLOY.parent / name).exists() for name in let_in)
