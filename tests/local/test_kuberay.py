"""deploy/kuberay: what KubeRay's API takes, clusters that are the same, doors that are shut."""

from pathlib import Path

import pytest
import yaml
from kuberay_api import KINDS, ClusterSpec, PodSpec
from pydantic import ValidationError
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import start
from ray.serve.schema import ServeDeploySchema

from lorid.config import load_config, parse_config
from lorid.distributed.demands import demands_of
from lorid.presets import PRESETS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
CONFIGS = sorted((ROOT / "deploy" / "configs").glob("*.yaml"))


def documents() -> dict[str, dict]:
    """Every document of every file, by kind and name."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            found[f"{document['kind']}/{document['metadata']['name']}"] = document
    return found


def clusters() -> dict[str, dict]:
    found = documents()
    return {
        "RayCluster": found["RayCluster/lorid"]["spec"],
        "RayJob": found["RayJob/lorid-distill"]["spec"]["rayClusterSpec"],
        "RayService": found["RayService/lorid"]["spec"]["rayClusterConfig"],
    }


def pods(cluster: dict) -> list[dict]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


@pytest.mark.parametrize("name", documents())
def test_a_manifest_has_only_what_its_api_knows(name):
    document = documents()[name]
    KINDS[document["kind"]].model_validate(document)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(workerGroupSpec=[]),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["autoscalerOptions"].update(version="v3"),
        lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="8"),
    ],
)
def test_a_wrong_manifest_would_be_refused(spoil):
    spec = documents()["RayCluster/lorid"]["spec"]
    spoil(spec)
    with pytest.raises(ValidationError):
        ClusterSpec.model_validate(spec)


@pytest.mark.parametrize("name", clusters())
def test_ray_start_knows_every_parameter(name):
    known = {option for parameter in start.params for option in parameter.opts}
    cluster = clusters()[name]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {f"--{key}" for key in group["rayStartParams"]} <= known


def test_the_three_clusters_differ_only_in_what_is_mounted():
    def bare(cluster: dict) -> dict:
        for pod in pods(cluster):
            spec = pod["spec"]
            spec["volumes"] = [one for one in spec["volumes"] if "emptyDir" in one]
            kept = {one["name"] for one in spec["volumes"]}
            (container,) = spec["containers"]
            container["volumeMounts"] = [
                mount for mount in container["volumeMounts"] if mount["name"] in kept
            ]
        return cluster

    first, *others = [bare(cluster) for cluster in clusters().values()]
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", clusters())
def test_what_a_pod_mounts_is_there_and_what_is_there_is_mounted(name):
    for pod in pods(clusters()[name]):
        (container,) = pod["spec"]["containers"]
        volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert sorted(volumes) == sorted(mount["name"] for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", clusters())
def test_ray_is_told_no_more_cpus_than_its_pod_has(name):
    cluster = clusters()[name]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        assert group["rayStartParams"]["num-cpus"] == container["resources"]["limits"]["cpu"]
        assert container["resources"]["limits"] == container["resources"]["requests"]


@pytest.mark.parametrize("name", [*PRESETS, *(file.name for file in CONFIGS)])
def test_every_place_that_a_run_asks_for_is_in_a_pod_that_may_come(name):
    file = ROOT / "deploy" / "configs" / name
    config = load_config(file) if file.exists() else load_config(None, preset=name)
    groups = clusters()["RayJob"]["workerGroupSpecs"]
    for demand in demands_of(config):
        fitting = 0
        for group in groups:
            (container,) = group["template"]["spec"]["containers"]
            limits = container["resources"]["limits"]
            gpus = float(limits.get("nvidia.com/gpu", 0))
            if demand.fits_on(num_cpus=float(limits["cpu"]), num_gpus=gpus):
                fitting += group["maxReplicas"]
        assert fitting, f"{name}: no pod has room for the {demand.what}"
        if demand.num_gpus:
            assert fitting >= demand.count


@pytest.mark.parametrize("name", clusters())
def test_pods_are_nobody_special_and_every_cluster_wants_the_token(name):
    cluster = clusters()[name]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "lorid-ray-token"}
    templates = pods(cluster)
    if name == "RayJob":
        templates = [
            *templates,
            documents()["RayJob/lorid-distill"]["spec"]["submitterPodTemplate"],
        ]
    for template in templates:
        spec = PodSpec.model_validate(template["spec"])
        assert spec.security_context.run_as_non_root
        assert all(not one.security_context.allow_privilege_escalation for one in spec.containers)
        assert all(one.security_context.capabilities.drop == ["ALL"] for one in spec.containers)
        # The head's autoscaler talks to Kubernetes, nobody else does.
        assert spec.automount_service_account_token == (spec.service_account_name == "lorid-head")


def test_the_network_policy_covers_every_pod_and_opens_no_port_of_ray_to_others():
    policy = documents()["NetworkPolicy/lorid"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    templates = [pod for cluster in clusters().values() for pod in pods(cluster)]
    templates.append(documents()["RayJob/lorid-distill"]["spec"]["submitterPodTemplate"])
    assert all(labels.items() <= pod["metadata"]["labels"].items() for pod in templates)
    opened = {
        port["port"]
        for rule in policy["ingress"]
        if {"podSelector": {"matchLabels": labels}} not in rule["from"]
        and "kuberay-operator" not in str(rule["from"])
        for port in rule["ports"]
    }
    assert opened == {8000, 8080}


def test_the_job_runs_a_job_of_the_image_with_a_config_that_loads():
    job = documents()["RayJob/lorid-distill"]["spec"]
    python, script, flag, file = job["entrypoint"].split()
    assert (python, flag) == ("python", "--config")
    assert (ROOT / Path(script).relative_to("/opt/lorid")).is_file()
    mounted = documents()["ConfigMap/lorid-run"]["data"]
    assert parse_config(mounted[Path(file).name]).store.startswith("s3://")
    RuntimeEnv(**yaml.safe_load(job["runtimeEnvYAML"]))


def test_the_service_is_one_that_serve_takes_and_has_tokens():
    text = documents()["RayService/lorid"]["spec"]["serveConfigV2"]
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = deployed.applications
    assert application.import_path == "serve.app:build"
    # Beyond loopback the endpoint refuses to start without tokens; the file is in the pods.
    mounts = pods(clusters()["RayService"])[0]["spec"]["containers"][0]["volumeMounts"]
    tokens = Path(application.args["serving.tokens_file"])
    assert str(tokens.parent) in {mount["mountPath"] for mount in mounts}
