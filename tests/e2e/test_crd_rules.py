"""A real API server keeps every rule of the CRD, and says what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from crd_cases import CASES, RuleCase
from e2e.cluster import PIPELINES, Kubectl, fresh_namespace
from pipelines import build_pipeline

pytestmark = pytest.mark.cluster
DRY_RUN = ("--dry-run=server", "-o", "json")


@pytest.fixture(scope="module")
def server(crd: None) -> Iterator[Kubectl]:
    del crd  # it need only be there
    with fresh_namespace("tocsin-crd") as kubectl:
        yield kubectl


def name_of(case: RuleCase) -> str:
    return case.name


def existing(kubectl: Kubectl, case: RuleCase) -> str:
    """Create what a transition rule compares with, and return its name."""
    body = build_pipeline(case.before or {})
    body["metadata"] = {"generateName": "before-"}
    created = yaml.safe_load(kubectl.do("create", "-f", "-", "-o", "yaml", body=body))
    return str(created["metadata"]["name"])


@pytest.mark.parametrize("case", [case for case in CASES if case.before is None], ids=name_of)
def test_a_new_object_meets_the_rule(server: Kubectl, case: RuleCase) -> None:
    server.do("create", *DRY_RUN, "-f", "-", body=build_pipeline(case.accepted))
    refused = server.ask("create", *DRY_RUN, "-f", "-", body=build_pipeline(case.refused))
    assert refused.code != 0
    assert case.message in refused.err


@pytest.mark.parametrize("case", [case for case in CASES if case.before is not None], ids=name_of)
def test_an_update_meets_the_rule(server: Kubectl, case: RuleCase) -> None:
    name = existing(server, case)
    server.do("apply", "--server-side", *DRY_RUN, "-f", "-", body=build_pipeline(case.accepted, name=name))
    refused = server.ask(
        "apply", "--server-side", "--force-conflicts", *DRY_RUN, "-f", "-", body=build_pipeline(case.refused, name=name)
    )
    assert refused.code != 0
    assert case.message in refused.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec.kafka.bootstrapServer": ["kafka:9092"]}, 'unknown field "spec.kafka.bootstrapServer"'),
        ({"spec.consumer.channels.0.type": "Pager"}, 'supported values: "Log", "Email", "Webhook"'),
        ({"spec.consumer.concurrency": 0}, "should be greater than or equal to 1"),
        ({"spec.consumer.channels": []}, "should have at least 1 items"),
    ],
    ids=["unknown key", "unknown channel", "out of bounds", "no channel"],
)
def test_a_mistake_the_schema_can_see_is_named(server: Kubectl, changes: dict[str, Any], words: str) -> None:
    refused = server.ask("create", *DRY_RUN, "-f", "-", body=build_pipeline(changes))
    assert refused.code != 0
    assert words in refused.err


def test_the_smallest_pipeline_gets_every_default(server: Kubectl) -> None:
    answer = yaml.safe_load(server.do("create", *DRY_RUN, "-f", "-", body=build_pipeline({})))
    scaling = answer["spec"]["consumer"]["scaling"]
    assert (scaling["mode"], scaling["maxReplicas"], scaling["maxLagSeconds"]) == ("Auto", 12, 60)
    assert answer["spec"]["ingestion"]["replicas"] == 2
    assert answer["spec"]["kafka"]["topic"]["management"] == "Managed"


def test_kubectl_scale_sets_the_consumers(server: Kubectl) -> None:
    server.apply(build_pipeline({}, name="scaled"))
    server.do("scale", PIPELINES, "scaled", "--replicas=3")
    assert server.read(PIPELINES, "scaled")["spec"]["consumer"]["replicas"] == 3


def test_pipelines_are_found_by_their_topic(server: Kubectl) -> None:
    server.apply(build_pipeline({"spec.kafka.topic.name": "rare"}, name="by-topic"))
    found = server.list(PIPELINES, "--field-selector", "spec.kafka.topic.name=rare")
    assert [each["metadata"]["name"] for each in found] == ["by-topic"]
