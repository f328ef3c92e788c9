"""Reading what the watches do not carry: the users' ConfigMap, and pods that are not ready.

Pods are listed only while a Deployment has not arrived where it should be. Watching them all was refused: a healthy
fleet's pods would fill the operator's memory and its day, to explain nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tocsin_operator.apply import KubernetesAPI
from tocsin_operator.children.config import USERS_FILE
from tocsin_operator.children.naming import LABEL_INSTANCE, LABEL_MANAGED_BY, MANAGED_BY
from tocsin_operator.errors import AccessForbidden, ObjectMissing
from tocsin_operator.facts import PodFacts, parse_pod
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem

MOUNT_GRACE_SECONDS = 5.0  # a volume's first moments look like a failure to mount it


async def observe_users(api: KubernetesAPI, pipeline: Pipeline) -> list[Problem]:
    """Return what is wrong with the ConfigMap of users. Raise KubernetesFailure where it cannot be known.

    Another directory is asked by the pods alone, who can reach it; one that cannot is not ready and says why.
    """
    reference = pipeline.spec.users.config_map_ref
    if reference is None:
        return []
    name = reference.name
    look = f"kubectl -n {pipeline.namespace} create configmap {name} --from-file={USERS_FILE}"
    try:
        found = await api.read("ConfigMap", pipeline.namespace, name)
    except ObjectMissing:
        message = f'ConfigMap "{name}" of users.configMapRef does not exist; create it: {look}'
        return [Problem("UsersMissing", message)]
    except AccessForbidden as error:
        return [Problem("UsersUnreadable", f'ConfigMap "{name}" of users.configMapRef: {error}')]
    if USERS_FILE in found.get("data", {}) or USERS_FILE in found.get("binaryData", {}):
        return []
    held = ", ".join(sorted(found.get("data", {}))) or "nothing"
    message = f'ConfigMap "{name}" of users.configMapRef has no key {USERS_FILE} (it holds: {held}); add it: {look}'
    return [Problem("UsersKeyMissing", message)]


async def observe_pods(api: KubernetesAPI, pipeline: Pipeline, *, now: datetime) -> Sequence[PodFacts]:
    """Return the pipeline's pods, with the kubelet's complaint where one waits for its volumes."""
    selector = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_INSTANCE}={pipeline.name}"
    bodies = await api.list("Pod", pipeline.namespace, labelSelector=selector)
    pods = [parse_pod(body, now=now) for body in bodies]
    return [await _add_mount_failure(api, pipeline, pod) if _waits_for_volumes(pod) else pod for pod in pods]


def _waits_for_volumes(pod: PodFacts) -> bool:
    return pod.waiting_reason == "ContainerCreating" and pod.age_seconds >= MOUNT_GRACE_SECONDS


async def _add_mount_failure(api: KubernetesAPI, pipeline: Pipeline, pod: PodFacts) -> PodFacts:
    """Return the pod with the note of its last FailedMount event: its status does not say."""
    try:
        events = await api.list(
            "Event", pipeline.namespace, fieldSelector=f"regarding.name={pod.name},reason=FailedMount"
        )
    except AccessForbidden:
        return pod
    return replace(pod, mount_failure=str(events[-1].get("note", "")).strip()) if events else pod
