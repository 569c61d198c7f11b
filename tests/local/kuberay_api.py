"""The parts of KubeRay's and Kubernetes' APIs that deploy/kuberay uses, as strict models.

    RayCluster.model_validate(document)

Field names, types and choices are those of KubeRay's API reference for `ray.io/v1` (1.6 and 1.7)
and of Kubernetes' `core/v1`, written down by hand: the custom resource definitions themselves are
in no package that the tests could install. A field that is not here is refused, so a new one in the
manifests has to be looked up and added.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

CPU = r"^([1-9]\d*m?|0\.\d+)$"
BYTES = r"^[1-9]\d*(Ki|Mi|Gi|Ti)$"
PORT = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
StringMap = dict[str, str]


class Strict(BaseModel):
    """No unknown field, and no string where a number is meant: the API server refuses both."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Meta(Strict):
    name: Name | None = None
    labels: StringMap = {}
    annotations: StringMap = {}


class Amounts(Strict):
    cpu: Annotated[str, Field(pattern=CPU)]
    memory: Annotated[str, Field(pattern=BYTES)]
    gpu: Annotated[str, Field(pattern=r"^[1-9]\d*$", alias="nvidia.com/gpu")] = "0"


class Resources(Strict):
    requests: Amounts
    limits: Amounts


class Seccomp(Strict):
    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]


class PodSecurity(Strict):
    run_as_non_root: bool
    run_as_user: int
    run_as_group: int | None = None
    fs_group: int | None = None
    seccomp_profile: Seccomp


class Capabilities(Strict):
    drop: list[str]


class ContainerSecurity(Strict):
    allow_privilege_escalation: bool
    capabilities: Capabilities


class Variable(Strict):
    name: str
    value: str


class Mount(Strict):
    name: str
    mount_path: Annotated[str, Field(pattern="^/")]
    read_only: bool = False


class ContainerPort(Strict):
    name: Annotated[str, Field(max_length=15)]
    container_port: PORT


class Container(Strict):
    name: Name
    image: Annotated[str, Field(pattern=r"^[\w./-]+:[\w.-]+$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    security_context: ContainerSecurity
    env: list[Variable] = []
    volume_mounts: list[Mount] = []
    ports: list[ContainerPort] = []
    resources: Resources


class EmptyDir(Strict):
    medium: Literal["", "Memory"] = ""
    size_limit: Annotated[str, Field(pattern=BYTES)]


class SecretSource(Strict):
    secret_name: Name
    default_mode: Annotated[int, Field(ge=0, le=0o777)]


class ConfigMapSource(Strict):
    name: Name


class Volume(Strict):
    name: Name
    empty_dir: EmptyDir | None = None
    secret: SecretSource | None = None
    config_map: ConfigMapSource | None = None


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    service_account_name: Name | None = None
    automount_service_account_token: bool = True
    restart_policy: Literal["Always", "OnFailure", "Never"]
    security_context: PodSecurity
    tolerations: list[Toleration] = []
    volumes: list[Volume] = []
    containers: Annotated[list[Container], Field(min_length=1)]


class PodTemplate(Strict):
    metadata: Meta
    spec: PodSpec


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]
    secret_name: Name


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idle_timeout_seconds: int
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"]
    resources: Resources


class HeadGroup(Strict):
    ray_start_params: StringMap
    template: PodTemplate


class WorkerGroup(Strict):
    group_name: Name
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: StringMap
    template: PodTemplate


class ClusterSpec(Strict):
    ray_version: str
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class SubmitterConfig(Strict):
    backoff_limit: int


class JobSpec(Strict):
    entrypoint: str
    runtime_env: Annotated[str, Field(alias="runtimeEnvYAML")]
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    submitter_config: SubmitterConfig
    submitter_pod_template: PodTemplate
    backoff_limit: int
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int
    ray_cluster_spec: ClusterSpec


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "None", "NewClusterWithIncrementalUpgrade"]


class ServiceSpec(Strict):
    serve_config_v2: str
    upgrade_strategy: UpgradeStrategy
    ray_cluster_config: ClusterSpec


class RayCluster(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Meta
    spec: ClusterSpec


class RayJob(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Meta
    spec: JobSpec


class RayService(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Meta
    spec: ServiceSpec


class ConfigMap(Strict):
    api_version: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Meta
    data: StringMap


class ServiceAccount(Strict):
    api_version: Literal["v1"]
    kind: Literal["ServiceAccount"]
    metadata: Meta


class Selector(Strict):
    match_labels: StringMap = {}


class Peer(Strict):
    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None


class PolicyPort(Strict):
    port: PORT
    protocol: Literal["TCP", "UDP", "SCTP"]


class IngressRule(Strict):
    sources: Annotated[list[Peer], Field(alias="from", min_length=1)]
    ports: list[PolicyPort] = []


class PolicySpec(Strict):
    pod_selector: Selector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: list[IngressRule]


class NetworkPolicy(Strict):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Meta
    spec: PolicySpec


KINDS: dict[str, type[Strict]] = {
    kind.__name__: kind
    for kind in (RayCluster, RayJob, RayService, ConfigMap, ServiceAccount, NetworkPolicy)
}
