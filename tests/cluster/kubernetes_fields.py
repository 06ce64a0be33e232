"""The fields that Kubernetes takes, as JSON Schemas, so far as cluster/kuberay.yaml uses or might misspell them.

An API server ignores an unknown field or refuses it, depending on its settings; here every one is refused. The names are
those of the published references: ray.io/v1 of KubeRay 1.6 (https://docs.ray.io/en/latest/cluster/kubernetes/references/
api.html), core/v1 and networking.k8s.io/v1 of Kubernetes 1.28 and later.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 63}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}


def choice(*values: str) -> Schema:
    return {"enum": list(values)}


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def record(required: str = "", **fields: Schema) -> Schema:
    """An object with these fields and no other; some must be there."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


METADATA = record("name", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS)
SELECTOR = record(matchLabels=TEXTS, matchExpressions=many({"type": "object"}))

AMOUNTS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": r"^(cpu|memory|ephemeral-storage|nvidia\.com/gpu)$"},
    "additionalProperties": QUANTITY,
}
RESOURCES = record(requests=AMOUNTS, limits=AMOUNTS)
VARIABLE = record("name", name=TEXT, value=TEXT, valueFrom={"type": "object"})
CONTAINER = record(
    "name image",
    name=NAME,
    image=TEXT,
    imagePullPolicy=choice("Always", "IfNotPresent", "Never"),
    command=many(TEXT),
    args=many(TEXT),
    env=many(VARIABLE),
    volumeMounts=many(record("name mountPath", name=NAME, mountPath=TEXT, readOnly=FLAG, subPath=TEXT)),
    resources=RESOURCES,
    securityContext={"type": "object"},
)
VOLUME = record(
    "name",
    name=NAME,
    persistentVolumeClaim=record("claimName", claimName=NAME, readOnly=FLAG),
    emptyDir={"type": "object"},
)
POD = record(
    "spec",
    metadata=record(labels=TEXTS, annotations=TEXTS),
    spec=record(
        "containers",
        containers=many(CONTAINER),
        volumes=many(VOLUME),
        restartPolicy=choice("Always", "OnFailure", "Never"),
        nodeSelector=TEXTS,
        tolerations=many({"type": "object"}),
        serviceAccountName=NAME,
        imagePullSecrets=many(record("name", name=NAME)),
        terminationGracePeriodSeconds=COUNT,
    ),
)

RAY_CLUSTER = record(
    "headGroupSpec rayVersion",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=record(mode=choice("disabled", "token"), secretName=NAME, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=record(
        version=choice("v1", "v2"),
        idleTimeoutSeconds=COUNT,
        upscalingMode=choice("Default", "Aggressive", "Conservative"),
        resources=RESOURCES,
        image=TEXT,
        env=many(VARIABLE),
    ),
    headGroupSpec=record(
        "template",
        template=POD,
        serviceType=choice("ClusterIP", "NodePort", "LoadBalancer"),
        enableIngress=FLAG,
        rayStartParams=TEXTS,
    ),
    workerGroupSpecs=many(
        record(
            "groupName template minReplicas maxReplicas",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            numOfHosts=COUNT,
            rayStartParams=TEXTS,
            template=POD,
        )
    ),
)
RAY_JOB = record(
    "apiVersion kind metadata spec",
    apiVersion=choice("ray.io/v1"),
    kind=choice("RayJob"),
    metadata=METADATA,
    spec=record(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        rayClusterSpec=RAY_CLUSTER,
        submissionMode=choice("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        backoffLimit=COUNT,
        activeDeadlineSeconds=COUNT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML=TEXT,
        submitterConfig=record(backoffLimit=COUNT),
        suspend=FLAG,
    ),
)

PEER = record(podSelector=SELECTOR, namespaceSelector=SELECTOR, ipBlock={"type": "object"})
NETWORK_POLICY = record(
    "apiVersion kind metadata spec",
    apiVersion=choice("networking.k8s.io/v1"),
    kind=choice("NetworkPolicy"),
    metadata=METADATA,
    spec=record(
        "podSelector",
        podSelector=SELECTOR,
        policyTypes=many(choice("Ingress", "Egress")),
        ingress=many({"type": "object", "properties": {"from": many(PEER), "ports": many({"type": "object"})}}),
    ),
)
