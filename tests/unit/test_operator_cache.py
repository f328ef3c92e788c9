"""The cache: a look at what is as it was costs nothing, and nothing that moved is missed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipelines import build_stored, parse_stored, prefix
from tocsin_operator.cache import Cache, identify
from tocsin_operator.children.deployments import Image, build_deployment
from tocsin_operator.children.naming import build_metadata
from tocsin_operator.model import PipelineError

PIPELINE = parse_stored({})


def pipeline_body(**metadata: Any) -> dict[str, Any]:
    return build_stored(prefix("metadata", {"resourceVersion": "10", **metadata}))


def service(**metadata: Any) -> dict[str, Any]:
    known = {**build_metadata(PIPELINE, "orders-ingestion", "ingestion"), "uid": "s", "resourceVersion": "20"}
    return {"kind": "Service", "metadata": {**known, **metadata}}


def deployment_answer(**metadata: Any) -> dict[str, Any]:
    body = copy.deepcopy(build_deployment(PIPELINE, "consumer", Image("i")))
    body["metadata"].update({"uid": "d", "resourceVersion": "30", "generation": 1, **metadata})
    return body


def test_a_new_pipeline_and_a_new_generation_deserve_a_look() -> None:
    cache = Cache()
    assert cache.observe_pipeline("ADDED", pipeline_body()) == "shop/orders"
    assert cache.observe_pipeline("MODIFIED", pipeline_body(generation=2, resourceVersion="11")) == "shop/orders"


def test_a_status_that_moved_is_remembered_and_deserves_no_look() -> None:
    cache = Cache()
    cache.observe_pipeline("ADDED", pipeline_body())
    body = {**pipeline_body(resourceVersion="11"), "status": {"observedGeneration": 1}}
    assert cache.observe_pipeline("MODIFIED", body) is None
    assert cache.pipelines["shop/orders"].status == {"observedGeneration": 1}


def test_a_late_event_does_not_bring_back_an_older_version() -> None:
    cache = Cache()
    cache.observe_pipeline("ADDED", pipeline_body(generation=2, resourceVersion="12"))
    assert cache.observe_pipeline("MODIFIED", pipeline_body(generation=1, resourceVersion="9")) is None
    assert cache.pipelines["shop/orders"].generation == 2


@pytest.mark.parametrize(("event", "metadata"), [("DELETED", {}), ("MODIFIED", {"deletionTimestamp": "now"})])
def test_a_pipeline_that_goes_is_gone_at_once(event: str, metadata: dict[str, Any]) -> None:
    cache = Cache()
    cache.observe_pipeline("ADDED", pipeline_body())
    assert cache.observe_pipeline(event, pipeline_body(**metadata)) == "shop/orders"
    assert not cache.pipelines


def test_a_pipeline_of_another_version_is_refused_by_name_of_the_field() -> None:
    with pytest.raises(PipelineError, match="kafka"):
        Cache().observe_pipeline("ADDED", {**pipeline_body(), "spec": {"kafka": 5}})


def test_a_child_as_it_was_applied_is_current() -> None:
    cache, body = Cache(), service()
    cache.record_applied(body, service(), now=100.0)
    cache.observe_child("MODIFIED", service())
    assert cache.is_current(body, now=150.0, max_age_seconds=60)


def test_a_child_applied_long_ago_is_applied_again() -> None:
    cache, body = Cache(), service()
    cache.record_applied(body, service(), now=100.0)
    assert not cache.is_current(body, now=161.0, max_age_seconds=60)


def test_another_wish_is_not_current() -> None:
    cache = Cache()
    cache.record_applied(service(), service(), now=0.0)
    assert not cache.is_current({**service(), "spec": {"type": "NodePort"}}, now=1.0, max_age_seconds=60)


def test_a_child_that_somebody_changed_is_not_current() -> None:
    cache = Cache()
    cache.record_applied(service(), service(), now=0.0)
    assert cache.observe_child("MODIFIED", service(resourceVersion="21")) == "shop/orders"
    assert not cache.is_current(service(), now=1.0, max_age_seconds=60)


def test_a_deployment_whose_status_moved_is_still_current() -> None:
    cache = Cache()
    cache.record_applied(deployment_answer(), deployment_answer(), now=0.0)
    cache.observe_child("MODIFIED", {**deployment_answer(resourceVersion="31"), "status": {"replicas": 1}})
    assert cache.is_current(deployment_answer(), now=1.0, max_age_seconds=60)
    facts = cache.find_deployment(PIPELINE, "consumer")
    assert facts is not None
    assert facts.replicas == 1


def test_a_deployment_that_somebody_edited_is_not_current() -> None:
    cache = Cache()
    cache.record_applied(deployment_answer(), deployment_answer(), now=0.0)
    cache.observe_child("MODIFIED", deployment_answer(resourceVersion="31", generation=2))
    assert not cache.is_current(deployment_answer(), now=1.0, max_age_seconds=60)


def test_a_deleted_child_is_not_known_and_its_pipeline_deserves_a_look() -> None:
    cache = Cache()
    cache.record_applied(service(), service(), now=0.0)
    assert cache.observe_child("DELETED", service()) == "shop/orders"
    assert not cache.knows(identify(service()))


def test_a_child_that_lost_its_labels_still_wakes_its_pipeline() -> None:
    cache = Cache()
    cache.record_applied(service(), service(), now=0.0)
    assert cache.observe_child("MODIFIED", service(labels={}, resourceVersion="22")) == "shop/orders"
    assert not cache.knows(identify(service()))


def test_forgetting_a_pipeline_forgets_its_children() -> None:
    cache = Cache()
    cache.observe_pipeline("ADDED", pipeline_body())
    cache.record_applied(service(), service(), now=0.0)
    cache.forget("shop/orders")
    assert not cache.knows(identify(service()))
    assert not cache.pipelines
