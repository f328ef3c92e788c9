"""From facts to words: problems name cause and fix, and the status claims no more than was seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pipelines import parse_stored, prefix
from tocsin_core.errors import KafkaUnavailable, NotAuthorized
from tocsin_operator.conditions import Claim, find_condition
from tocsin_operator.events import select_events
from tocsin_operator.facts import DeploymentFacts, PodFacts, parse_deployment, parse_pod
from tocsin_operator.model import Pipeline
from tocsin_operator.problems import Problem, explain_kafka_failure, explain_pod, find_pod_problems
from tocsin_operator.replicas import decide_first_replicas, decide_replicas
from tocsin_operator.status import World, build_status, is_status_current

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DURABLE = Claim("TopicDurable", True, "AcksFromFollowers", "fine")


def pipeline_of(**spec: Any) -> Pipeline:
    return parse_stored({"metadata.generation": 4, **prefix("spec", spec)})


def deployment(**changes: Any) -> DeploymentFacts:
    facts = DeploymentFacts(
        name="orders-consumer",
        resource_version="9",
        generation=1,
        observed_generation=1,
        desired=2,
        replicas=2,
        ready=2,
        updated=2,
        available=2,
        replica_failure="",
        replicas_owners=frozenset({"tocsin-scaler"}),
    )
    return replace(facts, **changes)


def pod(**changes: Any) -> PodFacts:
    facts = PodFacts(
        name="orders-consumer-1",
        role="consumer",
        age_seconds=60.0,
        is_ready=False,
        is_terminating=False,
        restarts=0,
        waiting_reason="",
        waiting_message="",
        last_exit_code=None,
        last_exit_reason="",
        last_words="",
        unschedulable="",
    )
    return replace(facts, **changes)


SERVING = deployment()


def world(
    *problems: Problem, ingestion: DeploymentFacts | None = SERVING, consumer: DeploymentFacts | None = SERVING
) -> World:
    return World({"ingestion": ingestion, "consumer": consumer}, problems, DURABLE)


def claim(status: dict[str, Any], kind: str) -> tuple[str, str]:
    condition = find_condition(status["conditions"], kind)
    assert condition is not None
    return condition["status"], condition["reason"]


def test_a_pipeline_whose_pods_are_available_is_ready_and_says_who_may_post() -> None:
    status = build_status(pipeline_of(), world(), now=NOON)
    assert claim(status, "Ready") == ("True", "PipelineServing")
    assert claim(status, "Progressing") == ("False", "RolledOut")
    assert claim(status, "Degraded") == ("False", "AsExpected")
    ready = find_condition(status["conditions"], "Ready")
    assert ready is not None
    assert "auth.mode None" in ready["message"]


def test_a_pipeline_that_asks_nobody_says_so_and_what_to_do_about_it() -> None:
    status = build_status(pipeline_of(), world(), now=NOON)
    condition = find_condition(status["conditions"], "Authenticated")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", "AuthModeNone")
    assert condition["observedGeneration"] == 4
    assert "set spec.ingestion.auth.mode to APIKey or JWT" in condition["message"]


@pytest.mark.parametrize(
    ("auth", "reason", "words"),
    [
        ({"mode": "APIKey", "keysSecretRef": {"name": "orders-keys"}}, "AuthModeAPIKey", "a key of Secret orders-keys"),
        (
            {
                "mode": "JWT",
                "jwt": {
                    "issuer": "https://id.example.org",
                    "audience": "orders",
                    "jwksURL": "https://id.example.org/keys",
                    "sendScope": "send",
                },
            },
            "AuthModeJWT",
            "a token of https://id.example.org with scope send",
        ),
    ],
)
def test_a_pipeline_that_asks_who_calls_says_whom_it_lets_in(auth: dict[str, Any], reason: str, words: str) -> None:
    status = build_status(parse_stored({"spec.ingestion.auth": auth}), world(), now=NOON)
    assert claim(status, "Authenticated") == ("True", reason)
    for kind in ("Authenticated", "Ready"):
        condition = find_condition(status["conditions"], kind)
        assert condition is not None
        assert words in condition["message"]


def test_a_pipeline_that_scales_out_stays_ready() -> None:
    status = build_status(pipeline_of(), world(consumer=deployment(desired=5, replicas=5, updated=5)), now=NOON)
    assert claim(status, "Ready") == ("True", "PipelineServing")
    assert claim(status, "Progressing")[0] == "True"


def test_a_bad_rollout_beside_old_pods_is_degraded_and_still_ready() -> None:
    problem = Problem("ImagePullFailed", "no image")
    status = build_status(pipeline_of(), world(problem, consumer=deployment(updated=1, replicas=3)), now=NOON)
    assert claim(status, "Ready")[0] == "True"
    assert claim(status, "Degraded") == ("True", "ImagePullFailed")


def test_a_role_without_pods_makes_the_pipeline_unready_for_the_first_problem_s_reason() -> None:
    status = build_status(
        pipeline_of(), world(Problem("SecretMissing", "x"), consumer=deployment(available=0)), now=NOON
    )
    assert claim(status, "Ready") == ("False", "SecretMissing")


def test_a_blocking_problem_makes_the_pipeline_unready_though_its_pods_run() -> None:
    status = build_status(pipeline_of(), world(Problem("TopicMissing", "x", is_blocking=True)), now=NOON)
    assert claim(status, "Ready") == ("False", "TopicMissing")


def test_a_pipeline_that_only_starts_is_not_degraded() -> None:
    status = build_status(pipeline_of(), world(consumer=None), now=NOON)
    assert claim(status, "Ready") == ("False", "PodsStarting")
    assert claim(status, "Degraded") == ("False", "AsExpected")


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("ingestion", "spec.ingestion.replicas is 0: nothing is accepted"),
        ("consumer", "spec.consumer.replicas is 0: nothing is delivered"),
    ],
)
def test_a_role_that_its_owner_stopped_is_named_and_not_said_to_start(role: str, words: str) -> None:
    stopped = deployment(desired=0, replicas=0, ready=0, updated=0, available=0)
    pipeline = parse_stored({f"spec.{role}.replicas": 0, f"spec.{role}.scaling": {"mode": "Manual"}})
    status = build_status(pipeline, world(**{role: stopped}), now=NOON)
    assert claim(status, "Ready") == ("False", "ScaledToZero")
    ready = find_condition(status["conditions"], "Ready")
    assert ready is not None
    assert words in ready["message"]


def test_a_suspended_pipeline_says_so() -> None:
    stopped = deployment(desired=0, replicas=0, ready=0, updated=0, available=0)
    status = build_status(pipeline_of(suspend=True), world(ingestion=stopped, consumer=stopped), now=NOON)
    assert claim(status, "Ready") == ("False", "Suspended")
    assert claim(status, "Progressing") == ("False", "Suspended")


def test_the_status_holds_what_the_scale_subresource_needs() -> None:
    consumer = build_status(pipeline_of(), world(), now=NOON)["consumer"]
    assert consumer["replicas"] == 2
    assert "app.kubernetes.io/component=consumer" in consumer["selector"]


def test_a_status_that_says_the_same_is_not_written_again() -> None:
    pipeline = pipeline_of()
    status = build_status(pipeline, world(), now=NOON)
    foreign = {"type": "ScalingActive", "status": "True"}
    written = {**status, "kafka": {}, "conditions": [foreign, *reversed(status["conditions"])]}
    seen = msgspec.structs.replace(pipeline, status=written)
    later = build_status(seen, world(), now=NOON + timedelta(hours=1))
    assert is_status_current(seen, later)
    assert not is_status_current(seen, build_status(seen, world(consumer=deployment(ready=1)), now=NOON))


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        (
            {"waiting_reason": "ImagePullBackOff", "waiting_message": 'Back-off pulling image "x"'},
            "ImagePullFailed",
            "x",
        ),
        ({"waiting_reason": "ErrImageNeverPull"}, "ImagePullFailed", "image.* in the chart"),
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "k" not found'},
            "SecretMissing",
            'secret "k" not found; create it in namespace shop',
        ),
        ({"mount_failure": 'secret "tls" not found'}, "SecretMissing", "starts by itself"),
        ({"mount_failure": 'configmap "people" not found'}, "MountFailed", "people"),
        ({"unschedulable": "0/3 nodes are available."}, "PodUnschedulable", "spec.consumer.resources"),
        ({"last_exit_code": 137, "last_exit_reason": "OOMKilled"}, "OutOfMemory", "limits.memory"),
        ({"last_exit_code": 2, "last_words": "Traceback\nkafka.brokers: wrong"}, "PodCrashing", "kafka.brokers: wrong"),
        ({"last_exit_code": 1}, "PodCrashing", "logs --previous orders-consumer-1"),
        ({}, "PodNotReady", "kubectl -n shop logs orders-consumer-1"),
    ],
)
def test_a_pod_s_trouble_is_named_with_its_cause_and_fix(changes: dict[str, Any], reason: str, text: str) -> None:
    problem = explain_pod(pod(**changes), pipeline_of())
    assert problem is not None
    assert problem.reason == reason
    assert text in problem.message


SECRETS = {
    "spec.kafka.credentialsSecretRef": {"name": "kafka-user"},
    "spec.redis": {"url": "redis://valkey", "credentialsSecretRef": {"name": "store"}},
    "spec.users": {"http": {"url": "http://users/{id}", "tokenSecretRef": {"name": "people"}}},
}


@pytest.mark.parametrize(
    ("complaint", "reason", "fix"),
    [
        (
            'secret "kafka-user" not found',
            "SecretMissing",
            "create it in namespace shop with the keys username and password (kafka.credentialsSecretRef); the pod",
        ),
        ('secret "people" not found', "SecretMissing", "with the key token (users.http.tokenSecretRef); the pod"),
        (
            'secret "store" not found',
            "SecretMissing",
            "with the key password, and username where the store asks for one (redis.credentialsSecretRef); the pod",
        ),
        ('secret "another" not found', "SecretMissing", "create it in namespace shop; the pod"),
        (
            "couldn't find key token in Secret shop/people",
            "SecretIncomplete",
            "add it: Secret people needs the key token (users.http.tokenSecretRef); the pod",
        ),
        ("couldn't find key a in Secret shop/another", "SecretIncomplete", "add it; the pod then starts by itself"),
        ("failed to sync secret cache: timed out waiting", "ContainerCannotStart", "failed to sync secret cache"),
    ],
)
def test_a_secret_that_a_pod_cannot_use_is_named_with_the_keys_it_needs(complaint: str, reason: str, fix: str) -> None:
    waiting = pod(waiting_reason="CreateContainerConfigError", waiting_message=complaint)
    problem = explain_pod(waiting, parse_stored(SECRETS))
    assert problem is not None
    assert problem.reason == reason
    assert fix in problem.message


def test_the_keys_of_a_secret_with_two_uses_are_all_named() -> None:
    store = {"url": "redis://valkey", "credentialsSecretRef": {"name": "kafka-user"}}
    waiting = pod(waiting_reason="CreateContainerConfigError", waiting_message='secret "kafka-user" not found')
    problem = explain_pod(waiting, parse_stored({**SECRETS, "spec.users": {"redis": store}}))
    assert problem is not None
    assert "the keys username and password (kafka.credentialsSecretRef) and the key password" in problem.message
    assert "(users.redis.credentialsSecretRef)" in problem.message


@pytest.mark.parametrize(
    "changes",
    [
        {"is_ready": True, "last_exit_code": 1},
        {"is_terminating": True, "waiting_reason": "ImagePullBackOff"},
        {"age_seconds": 3.0},
        {"waiting_reason": "ContainerCreating"},
    ],
)
def test_a_pod_that_is_ready_stops_or_starts_is_no_problem(changes: dict[str, Any]) -> None:
    assert explain_pod(pod(**changes), pipeline_of()) is None


def test_ten_pods_with_one_cause_are_one_problem() -> None:
    pods = [pod(name=f"p{number}", waiting_reason="ErrImagePull") for number in range(10)]
    assert len(find_pod_problems(pods, pipeline_of())) == 1


def test_the_newest_pod_s_problem_comes_first() -> None:
    old = pod(name="a", age_seconds=999.0, last_exit_code=1)
    new = pod(name="b", age_seconds=40.0, waiting_reason="ErrImagePull")
    assert [each.reason for each in find_pod_problems([old, new], pipeline_of())] == ["ImagePullFailed", "PodCrashing"]


def test_what_kafka_refuses_keeps_its_advice() -> None:
    problem = explain_kafka_failure(NotAuthorized("no", advice="grant Create"), pipeline_of())
    assert (problem.reason, problem.is_blocking) == ("TopicNotAuthorized", False)
    assert problem.message == "topic orders: no; grant Create"
    assert explain_kafka_failure(KafkaUnavailable("away"), pipeline_of()).reason == "KafkaUnavailable"


def test_one_cause_makes_one_event_and_lasting_states_make_none() -> None:
    pipeline = pipeline_of()
    broken = build_status(pipeline, world(Problem("TopicMissing", "x", is_blocking=True)), now=NOON)["conditions"]
    assert [event.reason for event in select_events([], broken)] == ["TopicMissing"]
    assert select_events(broken, broken) == []


def test_recovery_is_an_event() -> None:
    pipeline = pipeline_of()
    broken = build_status(pipeline, world(Problem("TopicMissing", "x", is_blocking=True)), now=NOON)["conditions"]
    mended = build_status(pipeline, world(), now=NOON)["conditions"]
    assert {event.reason for event in select_events(broken, mended)} == {"PipelineServing", "Mended"}


def test_starting_is_not_worth_an_event() -> None:
    starting = build_status(pipeline_of(), world(consumer=None), now=NOON)["conditions"]
    assert select_events([], starting) == []


def test_replicas_are_the_scaler_s_except_where_the_spec_fixes_them() -> None:
    scaled = deployment(desired=5)
    assert decide_replicas(pipeline_of(), "consumer", scaled) is None
    assert decide_replicas(pipeline_of(ingestion={"replicas": 3}), "ingestion", scaled) == 3
    manual = {"channels": [], "replicas": 4, "scaling": {"mode": "Manual"}}
    assert decide_replicas(pipeline_of(consumer=manual), "consumer", scaled) == 4
    assert decide_replicas(pipeline_of(suspend=True), "consumer", scaled) == 0


def test_a_pipeline_that_resumes_starts_at_its_minimum() -> None:
    scaling = {"channels": [], "scaling": {"minReplicas": 2}}
    assert decide_replicas(pipeline_of(consumer=scaling), "consumer", deployment(desired=0)) == 2


@pytest.mark.parametrize(("last", "first"), [(0, 1), (6, 6), (99, 12)])
def test_a_deployment_made_again_starts_where_the_scaler_had_it(last: int, first: int) -> None:
    pipeline = msgspec.structs.replace(pipeline_of(), status={"consumer": {"desiredReplicas": last}})
    assert decide_first_replicas(pipeline, "consumer") == first


def test_a_deployment_s_facts_know_who_owns_its_replicas() -> None:
    managed = [
        {"manager": "tocsin-operator", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "tocsin-scaler", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    body = {
        "metadata": {"name": "d", "resourceVersion": "7", "generation": 3, "managedFields": managed},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 3, "conditions": [failure]},
    }
    facts = parse_deployment(body)
    assert facts.replicas_owners == {"tocsin-scaler"}
    assert facts.replica_failure == "exceeded quota"
    assert not facts.is_rolled_out


def test_a_pod_s_facts_hold_its_last_words() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": "boom\n"}
    container = {
        "name": "consumer",
        "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": ended},
    }
    body = {
        "metadata": {
            "name": "p",
            "creationTimestamp": "2026-11-23T11:59:00Z",
            "labels": {"app.kubernetes.io/component": "consumer"},
        },
        # A mesh's container beside ours, and before it, has words of its own.
        "status": {"containerStatuses": [{"name": "sidecar"}, container]},
    }
    facts = parse_pod(body, now=NOON)
    assert (facts.age_seconds, facts.last_exit_code, facts.last_words) == (60.0, 1, "boom")
