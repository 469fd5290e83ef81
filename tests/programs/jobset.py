"""JSON schema of what launch/gke_jobset.yaml uses, by hand from the API references of JobSet (v1alpha2) and Kubernetes.

Sources: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/ and the references of batch/v1 Job and core/v1 Pod.
Objects are closed, so that a misspelt field is an error here, as it is for the API server.
"""

NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required: str = "", **fields: object) -> dict[str, object]:
    """An object of these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def each(item: object, **more: object) -> dict[str, object]:
    return {"type": "array", "items": item, "minItems": 1} | more


CONTAINER = closed(
    "name image",
    name=NAME,
    image={"type": "string", "minLength": 1},
    command=each({"type": "string"}),
    args=each({"type": "string"}),
    env=each(closed("name", name={"type": "string"}, value={"type": "string"})),
    ports=each(closed("containerPort", containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    resources=closed(
        limits={"type": "object", "additionalProperties": {"type": ["integer", "string"]}},
        requests={"type": "object", "additionalProperties": {"type": ["integer", "string"]}},
    ),
)
POD = closed(
    "containers restartPolicy",
    restartPolicy={"const": "Never"},  # a podFailurePolicy wants it
    terminationGracePeriodSeconds=COUNT,
    serviceAccountName=NAME,
    nodeSelector=TEXTS,
    hostNetwork={"type": "boolean"},
    dnsPolicy={"enum": ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]},
    containers=each(CONTAINER),
)
EXIT_CODES = closed(
    "operator values",
    containerName=NAME,
    operator={"enum": ["In", "NotIn"]},
    values=each({"type": "integer", "minimum": 1}, uniqueItems=True, maxItems=255),
)
JOB = closed(
    "template",
    parallelism=COUNT,
    completions=COUNT,
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    podFailurePolicy=closed(
        "rules",
        rules=each(
            closed(
                "action onExitCodes",
                action={"enum": ["FailJob", "Ignore", "Count", "FailIndex"]},
                onExitCodes=EXIT_CODES,
            )
        ),
    ),
    template=closed("spec", metadata=closed(labels=TEXTS, annotations=TEXTS), spec=POD),
)
RULE = closed(
    "name action",
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={
        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob"]
        + ["RestartJobAndIgnoreMaxRestarts"]
    },
    onJobFailureReasons=each(
        {
            "enum": ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"]
            + ["PodFailurePolicy"]
        },
        uniqueItems=True,
    ),
    targetReplicatedJobs=each(NAME),
)
JOBSET = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=closed("name", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS),
    spec=closed(
        "replicatedJobs",
        network=closed(
            enableDNSHostnames={"type": "boolean"}, subdomain=NAME, publishNotReadyAddresses={"type": "boolean"}
        ),
        failurePolicy=closed(
            maxRestarts=COUNT,
            restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]},
            rules=each(RULE),
        ),
        suspend={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        replicatedJobs=each(closed("name template", name=NAME, replicas=COUNT, template=closed("spec", spec=JOB))),
    ),
)
