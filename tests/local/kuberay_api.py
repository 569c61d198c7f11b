"""The parts of KubeRay's and Kubernetes' APIs that deploy/kuberay uses, as strict models.

    RayCluster.model_validate(document)

Field names, types and choices are those of KubeRay's API reference for `ray.io/v1` (1.6 and 1.7) and
of Kubernetes' `core/v1`, written down by hand: the custom resource definitions themselves are no
package of any registry that the tests reach. A field that is not here is refused, so a new one in
the manifests has to be looked up and added.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CPU = r"^([1-9]\d*m?|0\.\d+)$"
BYTES = r"^[1-9]\d*(Ki|Mi|Gi|Ti)$"
PORT = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
StringMap = dict[str, str]


class Strict(BaseModel):
    """No unknown field, and no string where a number is meant: the API server refuses both."""

    model_config = ConfigDict(extra="forbid", strict=True)


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
    runAsNonRoot: bool
    runAsUser: int
    runAsGroup: int | None = None
    fsGroup: int | None = None
    seccompProfile: Seccomp


class Capabilities(Strict):
    drop: list[str]


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: bool
    capabilities: Capabilities


class Variable(Strict):
    name: str
    value: str


class Mount(Strict):
    name: str
    mountPath: Annotated[str, Field(pattern="^/")]
    readOnly: bool = False


class ContainerPort(Strict):
    name: Annotated[str, Field(max_length=15)]
    containerPort: PORT


class Container(Strict):
    name: Name
    image: Annotated[str, Field(pattern=r"^[\w./-]+:[\w.-]+$")]
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    securityContext: ContainerSecurity
    env: list[Variable] = []
    volumeMounts: list[Mount] = []
    ports: list[ContainerPort] = []
    resources: Resources


class EmptyDir(Strict):
    medium: Literal["", "Memory"] = ""
    sizeLimit: Annotated[str, Field(pattern=BYTES)]


class SecretSource(Strict):
    secretName: Name
    defaultMode: Annotated[int, Field(ge=0, le=0o777)]


class ConfigMapSource(Strict):
    name: Name


class Volume(Strict):
    name: Name
    emptyDir: EmptyDir | None = None
    secret: SecretSource | None = None
    configMap: ConfigMapSource | None = None


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    serviceAccountName: Name | None = None
    automountServiceAccountToken: bool = True
    restartPolicy: Literal["Always", "OnFailure", "Never"]
    securityContext: PodSecurity
    tolerations: list[Toleration] = []
    volumes: list[Volume] = []
    containers: Annotated[list[Container], Field(min_length=1)]


class PodTemplate(Strict):
    metadata: Meta
    spec: PodSpec


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]
    secretName: Name


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: int
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]
    resources: Resources


class HeadGroup(Strict):
    rayStartParams: StringMap
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Name
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: StringMap
    template: PodTemplate


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class SubmitterConfig(Strict):
    backoffLimit: int


class JobSpec(Strict):
    entrypoint: str
    runtimeEnvYAML: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    submitterConfig: SubmitterConfig
    submitterPodTemplate: PodTemplate
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    rayClusterSpec: ClusterSpec


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "None", "NewClusterWithIncrementalUpgrade"]


class ServiceSpec(Strict):
    serveConfigV2: str
    upgradeStrategy: UpgradeStrategy
    rayClusterConfig: ClusterSpec


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Meta
    spec: ClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Meta
    spec: JobSpec


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Meta
    spec: ServiceSpec


class ConfigMap(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Meta
    data: StringMap


class ServiceAccount(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["ServiceAccount"]
    metadata: Meta


class Selector(Strict):
    matchLabels: StringMap = {}


class Peer(Strict):
    podSelector: Selector | None = None
    namespaceSelector: Selector | None = None


class PolicyPort(Strict):
    port: PORT
    protocol: Literal["TCP", "UDP", "SCTP"]


class IngressRule(Strict):
    sources: Annotated[list[Peer], Field(alias="from", min_length=1)]
    ports: list[PolicyPort] = []


class PolicySpec(Strict):
    podSelector: Selector
    policyTypes: list[Literal["Ingress", "Egress"]]
    ingress: list[IngressRule]


class NetworkPolicy(Strict):
    apiVersion: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Meta
    spec: PolicySpec


KINDS: dict[str, type[Strict]] = {
    kind.__name__: kind
    for kind in (RayCluster, RayJob, RayService, ConfigMap, ServiceAccount, NetworkPolicy)
}
