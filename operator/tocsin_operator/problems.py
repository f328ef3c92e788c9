"""What is wrong with a pipeline, in words its owner can act on.

An ordered chain of small pure rules per subject, each returning a Problem or nothing; the first that knows speaks.
A Problem's reason becomes a condition's reason and an event's, its message names the cause and the fix. Messages hold
nothing that changes by itself (no counts of restarts, no ages): a status is written when its meaning changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tocsin_core.errors import (
    KafkaFailure,
    KafkaUnavailable,
    NotAuthenticated,
    NotAuthorized,
    TocsinError,
    TopicMissing,
)
from tocsin_operator.facts import DeploymentFacts, PodFacts
from tocsin_operator.model import Pipeline

NOT_READY_GRACE_SECONDS = 30.0
LAST_WORDS_CHARS = 500
IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
START_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# The kubelet's words for the two things that can be wrong with a Secret that a variable comes from.
NO_SECRET = re.compile(r'secret "([^"]+)" not found')
NO_KEY = re.compile(r"couldn't find key \S+ in Secret [^/\s]+/(\S+)")
STORE_KEYS = "the key password, and username where the store asks for one"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something its owner should do. A blocking one means the pipeline cannot work even where its pods run."""

    reason: str
    message: str
    is_blocking: bool = False


def find_pod_problems(pods: Iterable[PodFacts], pipeline: Pipeline) -> list[Problem]:
    """Return one problem per role and reason, those of the newest pods first: they are what the spec now asks for."""
    found: dict[tuple[str, str], Problem] = {}
    for pod in sorted(pods, key=lambda each: (each.age_seconds, each.name)):
        problem = explain_pod(pod, pipeline)
        if problem is not None:
            found.setdefault((pod.role, problem.reason), problem)
    return list(found.values())


def explain_pod(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    """Return why a pod is not ready, None where it is, stops, or is merely starting."""
    if pod.is_ready or pod.is_terminating:
        return None
    return next((problem for rule in _POD_RULES if (problem := rule(pod, pipeline)) is not None), None)


def explain_deployment(deployment: DeploymentFacts) -> Problem | None:
    """Return why a Deployment gets no pods: a quota, an admission policy, a ServiceAccount that is gone."""
    if not deployment.replica_failure:
        return None
    return Problem("PodsRefused", f"Deployment {deployment.name} gets no pods: {deployment.replica_failure}")


def explain_kafka_failure(error: TocsinError, pipeline: Pipeline) -> Problem:
    """Return the problem behind a failure to look after the pipeline's topics."""
    kinds: dict[type[TocsinError], str] = {
        KafkaUnavailable: "KafkaUnavailable",
        NotAuthenticated: "KafkaNotAuthenticated",
        NotAuthorized: "TopicNotAuthorized",
        TopicMissing: "TopicMissing",
    }
    known = next((name for kind, name in kinds.items() if isinstance(error, kind)), "TopicFailed")
    reason = str(getattr(error, "reason", known))  # a failure of the way to Kafka (a missing Secret) names its own
    advice = error.advice if isinstance(error, KafkaFailure) else ""
    message = f"topic {pipeline.spec.kafka.topic.name}: {error}"
    return Problem(reason, f"{message}; {advice}" if advice else message, is_blocking=reason == "TopicMissing")


def explain_topic_fault(error: Exception, pipeline: Pipeline) -> Problem:
    """Return the problem behind a fault of the operator's own while it looked after the pipeline's topics."""
    fix = "this is a fault of the operator's, whose log has more; it is tried again"
    return Problem("TopicFailed", f"topic {pipeline.spec.kafka.topic.name}: {error!r}; {fix}")


def explain_missing_retry_topics(names: Sequence[str], partitions: int) -> Problem:
    """Return what it means that consumers have to do without these retry topics."""
    listed = ", ".join(names)
    fix = f"create them with {partitions} partitions and let the pipeline's user Describe, Read and Write them"
    message = f"no retry topics {listed}, or no right to see them: retries hold up what is behind them; {fix}"
    return Problem("RetryTopicsMissing", message)


def _explain_image(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    del pipeline
    if pod.waiting_reason not in IMAGE_REASONS:
        return None
    detail = pod.waiting_message or pod.waiting_reason
    fix = "make the image pullable from the nodes, or give the operator another one (image.* in the chart's values)"
    # The kubelet alternates between the attempt and the back-off from it, with two texts for one cause.
    cause = detail.removeprefix("Back-off pulling image ").strip()
    return Problem("ImagePullFailed", f"a pod of the {pod.role} cannot pull its image: {cause}; {fix}")


def _explain_start(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    if pod.waiting_reason not in START_REASONS:
        return None
    cause = pod.waiting_message or pod.waiting_reason
    message = f"a pod of the {pod.role} cannot start: {cause}"
    if found := NO_SECRET.search(cause):
        keys = _describe_keys(pipeline, found[1])
        fix = f"create it in namespace {pipeline.namespace}{keys and f' with {keys}'}"
        return Problem("SecretMissing", f"{message}; {fix}; the pod then starts by itself")
    if found := NO_KEY.search(cause):
        keys = _describe_keys(pipeline, found[1])
        fix = f"add it{keys and f': Secret {found[1]} needs {keys}'}"
        return Problem("SecretIncomplete", f"{message}; {fix}; the pod then starts by itself")
    return Problem("ContainerCannotStart", message)


def _describe_keys(pipeline: Pipeline, secret: str) -> str:
    """Return which keys pods read of a Secret and which field says so, "" where no field names it."""
    kafka, redis, users = pipeline.spec.kafka, pipeline.spec.redis, pipeline.spec.users
    references = [
        (kafka.credentials_secret_ref, "the keys username and password", "kafka.credentialsSecretRef"),
        (redis and redis.credentials_secret_ref, STORE_KEYS, "redis.credentialsSecretRef"),
        (users.redis and users.redis.credentials_secret_ref, STORE_KEYS, "users.redis.credentialsSecretRef"),
        (users.http and users.http.token_secret_ref, "the key token", "users.http.tokenSecretRef"),
    ]
    named = [f"{keys} ({field})" for reference, keys, field in references if reference and reference.name == secret]
    return " and ".join(named)


def _explain_mount(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    if not pod.mount_failure:
        return None
    is_secret = "secret" in pod.mount_failure.lower()
    fix = f"create it in namespace {pipeline.namespace}; the pod then starts by itself"
    reason = "SecretMissing" if is_secret else "MountFailed"
    return Problem(reason, f"a pod of the {pod.role} waits for its files: {pod.mount_failure}; {fix}")


def _explain_scheduling(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    del pipeline
    if not pod.unschedulable:
        return None
    fix = f"make room, or ask for less in spec.{pod.role}.resources"
    return Problem("PodUnschedulable", f"no node takes a pod of the {pod.role}: {pod.unschedulable} {fix}")


def _explain_crash(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    if pod.last_exit_code is None:
        return None
    if pod.last_exit_reason == "OOMKilled":
        fix = f"raise spec.{pod.role}.resources.limits.memory"
        return Problem("OutOfMemory", f"a pod of the {pod.role} was killed for using more memory than its limit; {fix}")
    look = f"none; kubectl -n {pipeline.namespace} logs --previous {pod.name}"
    words = pod.last_words.splitlines()[-1][-LAST_WORDS_CHARS:] if pod.last_words else look  # a traceback ends with why
    message = f"a pod of the {pod.role} exits with code {pod.last_exit_code}; its last words: {words}"
    return Problem("PodCrashing", message)


def _explain_unready(pod: PodFacts, pipeline: Pipeline) -> Problem | None:
    if pod.waiting_reason or pod.age_seconds < NOT_READY_GRACE_SECONDS:
        return None
    look = f"kubectl -n {pipeline.namespace} logs {pod.name}"
    return Problem("PodNotReady", f"a pod of the {pod.role} runs and is not ready; its log says why: {look}")


_POD_RULES: tuple[Callable[[PodFacts, Pipeline], Problem | None], ...] = (
    _explain_image,
    _explain_start,
    _explain_mount,
    _explain_scheduling,
    _explain_crash,
    _explain_unready,
)
