"""The scaling loop's ports in a cluster. The API here only remembers; what a server makes of it, tests/e2e ask one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipelines import build_stored, prefix
from tocsin_core.errors import KafkaFailure, KafkaUnavailable, NotAuthenticated
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.cache import Cache
from tocsin_operator.errors import AccessForbidden, ObjectMissing, WriteConflict
from tocsin_operator.ingestion_scaler import IngestionScaler
from tocsin_operator.model import Pipeline
from tocsin_operator.pods import PodPages
from tocsin_operator.scaler import ClusterWorld, Scaler, build_target, find_next_count
from tocsin_operator.scaling.counters import parse_consumer
from tocsin_operator.scaling.model import Replicas
from tocsin_operator.scaling.ports import ScaleConflict

BACKLOG = tuple(PartitionOffsets(number, 0, 5_000, 0) for number in range(12))
IDLE = tuple(PartitionOffsets(number, 0, 5_000, 5_000) for number in range(12))

IDENTITY: dict[str, Any] = {"metadata.uid": "u1", "metadata.generation": 3}


def build_body(status: dict[str, Any] | None = None, **scaling: Any) -> dict[str, Any]:
    changes = {"metadata.uid": "u1", "metadata.generation": 3, "status": status or {}}
    return build_stored({**changes, **prefix("spec.consumer.scaling", {"capacityPerSecond": 100, **scaling})})


def build_deployment(replicas: int, version: str) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "tocsin",
        "app.kubernetes.io/instance": "orders",
        "app.kubernetes.io/component": "consumer",
        "app.kubernetes.io/managed-by": "tocsin-operator",
    }
    owner = {
        "apiVersion": "tocsin.dev/v1alpha1",
        "kind": "NotificationPipeline",
        "name": "orders",
        "uid": "u1",
        "controller": True,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "orders-consumer",
            "namespace": "shop",
            "uid": "d1",
            "resourceVersion": version,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas, "readyReplicas": replicas},
    }


@dataclass
class API:
    """Remembers what was written; `fresh` is what a read of the Deployment finds."""

    fresh: dict[str, Any] = field(default_factory=dict)
    conflicts: int = 0
    gone: bool = False
    scaled: list[tuple[str, str, int, str]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    managers: list[str] = field(default_factory=list)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    listed: int = 0
    marks: dict[str, dict[str, str]] = field(default_factory=dict)
    forbids_marks: bool = False
    role: str = "consumer"

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        assert (kind, namespace, name) == ("Deployment", "shop", "orders-consumer")
        if not self.fresh:
            raise ObjectMissing("no such Deployment")
        return self.fresh

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        assert (kind, namespace) == ("Pod", "shop")
        assert f"app.kubernetes.io/component={self.role}" in selectors["labelSelector"]
        self.listed += 1
        return self.pods

    async def apply_scale(
        self, namespace: str, deployment: str, replicas: int, *, resource_version: str = ""
    ) -> dict[str, Any]:
        if self.conflicts:
            self.conflicts -= 1
            raise WriteConflict("the object has been modified")
        self.scaled.append((namespace, deployment, replicas, resource_version))
        return {}

    async def annotate_pod(self, namespace: str, name: str, annotations: dict[str, str]) -> dict[str, Any]:
        assert namespace == "shop"
        if self.forbids_marks:
            raise AccessForbidden("pods may not be patched")
        self.marks[name] = annotations
        return {}

    async def apply_status(self, pipeline: Pipeline, status: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        assert pipeline.name == "orders"
        if self.gone:
            raise ObjectMissing("no such pipeline")
        self.statuses.append(status)
        self.managers.append(field_manager)
        return {}

    async def emit_event(
        self, pipeline: Pipeline, *, reason: str, message: str, level: str = "Normal", **_: str
    ) -> None:
        assert pipeline.name == "orders"
        self.events.append((level, reason, message))


@dataclass
class Admin:
    """Answers with what it is given."""

    answer: tuple[PartitionOffsets, ...] | KafkaFailure = IDLE
    asked: list[list[tuple[str, str]]] = field(default_factory=list)

    async def observe_groups(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        self.asked.append(pairs)
        return dict.fromkeys(pairs, self.answer)


@dataclass
class Clusters:
    admin: Admin = field(default_factory=Admin)
    forgotten: int = 0

    async def admin_for(self, pipeline: Pipeline) -> Admin:
        assert pipeline.name == "orders"
        return self.admin

    def forget_secrets(self, pipeline: Pipeline) -> None:
        assert pipeline.name == "orders"
        self.forgotten += 1


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def now_seconds(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Room:
    """A scaler with everything around it."""

    body: dict[str, Any] = field(default_factory=build_body)
    api: API = field(default_factory=API)
    clusters: Clusters = field(default_factory=Clusters)
    clock: Clock = field(default_factory=Clock)
    cache: Cache = field(default_factory=Cache)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    pages: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache.observe_pipeline("ADDED", self.body)
        self.see_deployment(1, "7")
        self.scaler = Scaler(
            api=self.api,  # type: ignore[arg-type]
            cache=self.cache,
            clusters=self.clusters,  # type: ignore[arg-type]
            clock=self.clock,
            registry=self.registry,
            pages=build_pages(self),
        )

    def see_deployment(self, replicas: int, version: str) -> None:
        self.cache.observe_child("MODIFIED", build_deployment(replicas, version))

    async def run(self, passes: int = 1) -> None:
        for _ in range(passes):
            await self.scaler.run_pass()
            self.clock.now += 5

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"tocsin_scaling_{name}", {"namespace": "shop", "name": "orders"})


class Reader:
    """Answers for every address with the same page."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def read(self, address: str) -> str | None:
        return self._room.pages.get(address)

    async def close(self) -> None:
        return


def build_pages(room: Room) -> PodPages:
    return PodPages(room.api, Reader(room), now=room.clock.now_seconds)  # type: ignore[arg-type]


def build_world(room: Room) -> ClusterWorld:
    return ClusterWorld(
        api=room.api,  # type: ignore[arg-type]
        cache=room.cache,
        clusters=room.clusters,  # type: ignore[arg-type]
        pages=build_pages(room),
        now=room.clock.now_seconds,
    )


def build_pod(name: str, address: str, *, is_ready: bool = True) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True" if is_ready else "False"}
    return {"metadata": {"name": name}, "status": {"podIP": address, "conditions": [ready]}}


@pytest.fixture
def room() -> Room:
    return Room()


async def test_consumers_are_scaled_at_the_version_that_was_seen(room: Room) -> None:
    room.clusters.admin.answer = BACKLOG
    await room.run()
    assert room.api.scaled == [("shop", "orders-consumer", 6, "7")]


async def test_the_question_is_about_the_pipeline_s_group_and_topic(room: Room) -> None:
    await room.run()
    assert room.clusters.admin.asked == [[("shop.orders", "orders")]]


async def test_an_action_is_an_event_with_both_numbers(room: Room) -> None:
    room.clusters.admin.answer = BACKLOG
    await room.run()
    level, reason, message = room.api.events[0]
    assert (level, reason) == ("Normal", "ConsumersScaledOut")
    assert message.startswith("from 1 to 6: ")


async def test_the_status_is_the_scaler_s_own_part_and_nothing_else(room: Room) -> None:
    await room.run()
    (status,) = room.api.statuses
    assert set(status) == {"kafka", "scaling", "conditions"}
    assert [each["type"] for each in status["conditions"]] == [
        "ScalingActive",
        "KafkaReachable",
        "PartitionsMoving",
        "ChannelsMoving",
    ]
    assert all(each["observedGeneration"] == 3 for each in status["conditions"])
    assert room.api.managers == ["tocsin-scaler"]


async def test_an_idle_pipeline_is_written_once(room: Room) -> None:
    await room.run(passes=100)
    assert len(room.api.statuses) <= 3  # the first look, what it learns of arrivals, and the window that fills


async def test_a_stale_cache_costs_one_read_and_not_the_decision(room: Room) -> None:
    room.clusters.admin.answer = BACKLOG
    room.api.conflicts = 1
    room.api.fresh = build_deployment(2, "9")
    await room.run()
    assert room.api.scaled == [("shop", "orders-consumer", 6, "9")]


async def test_a_conflict_is_told_to_the_loop_in_its_own_words(room: Room) -> None:
    room.api.conflicts = 1
    world = build_world(room)
    (target,) = world.list_targets()
    with pytest.raises(ScaleConflict):
        await world.apply_scale(target, 3, "7")


async def test_replicas_come_from_the_deployment_the_watch_told_of(room: Room) -> None:
    world = build_world(room)
    (target,) = world.list_targets()
    seen = await world.observe_replicas(target)
    assert seen == (Replicas(spec=1, ready=1), "7")


async def test_credentials_that_were_refused_are_read_again(room: Room) -> None:
    room.clusters.admin.answer = NotAuthenticated("wrong password")
    await room.run()
    assert room.clusters.forgotten == 1


async def test_an_unreachable_broker_becomes_a_condition_and_one_warning(room: Room) -> None:
    room.clusters.admin.answer = KafkaUnavailable("no broker answers", advice="check bootstrapServers")
    await room.run(passes=60)
    reachable = room.api.statuses[-1]["conditions"][1]
    assert (reachable["status"], reachable["reason"]) == ("False", "BrokerUnreachable")
    assert reachable["message"] == "no broker answers; check bootstrapServers"
    assert [reason for _, reason, _ in room.api.events].count("BrokerUnreachable") == 1
    assert room.api.scaled == []


async def test_a_broker_that_comes_back_turns_the_condition_at_once(room: Room) -> None:
    room.clusters.admin.answer = KafkaUnavailable("no broker answers")
    await room.run()
    room.clusters.admin.answer = IDLE
    await room.run(passes=3)
    assert room.api.statuses[-1]["conditions"][1]["status"] == "True"


async def test_a_pipeline_that_vanishes_while_it_is_written_is_no_error(room: Room) -> None:
    room.api.gone = True
    await room.run()
    assert room.api.statuses == []


async def test_a_deleted_pipeline_leaves_no_gauges(room: Room) -> None:
    await room.run()
    assert room.metric("partitions") == 12
    room.cache.observe_pipeline("DELETED", room.body)
    other = build_body()
    other["metadata"] |= {"name": "orders", "namespace": "elsewhere", "uid": "u2"}
    room.cache.observe_pipeline("ADDED", other)
    await room.run(passes=2)
    assert room.metric("partitions") is None


async def test_every_input_of_a_decision_is_a_metric(room: Room) -> None:
    room.clusters.admin.answer = BACKLOG
    await room.run()
    assert room.metric("total_lag") == 60_000
    assert room.metric("capacity_per_second") == 100
    assert room.metric("desired_replicas") == 6
    assert room.metric("replicas") == 1


async def test_a_channel_s_lag_and_whether_it_is_held_are_metrics_that_go_with_the_channel(room: Room) -> None:
    channels = [{"name": "hook", "type": "Log"}, {"name": "mail", "type": "Log"}]
    room.body["spec"]["consumer"]["channels"] = channels
    room.cache.observe_pipeline("MODIFIED", room.body)
    room.clusters.admin.answer = tuple(PartitionOffsets(each, 0, 50, 10, {"hook": 0, "mail": 40}) for each in range(12))
    await room.run()
    labels = {"namespace": "shop", "name": "orders", "channel": "hook"}
    assert room.registry.get_sample_value("tocsin_scaling_channel_lag", labels) == 480
    assert room.registry.get_sample_value("tocsin_scaling_channel_held", labels) == 0
    room.body["metadata"]["generation"] = 4
    room.body["spec"]["consumer"]["channels"] = channels[1:]
    room.cache.observe_pipeline("MODIFIED", room.body)
    await room.run()
    assert room.registry.get_sample_value("tocsin_scaling_channel_lag", labels) is None


def test_the_seconds_of_each_held_channel_are_read_from_the_page() -> None:
    page = PAGE.format(processed=1, busy=1) + (
        "# TYPE tocsin_channel_held_seconds_total counter\n"
        'tocsin_channel_held_seconds_total{channel="hook"} 12.5\n'
        'tocsin_channel_held_seconds_total{channel="mail"} NaN\n'
    )
    counters = parse_consumer("a", page)
    assert counters is not None
    assert counters.held_seconds == {"hook": 12.5}


def test_a_target_remembers_what_the_status_says() -> None:
    status = {"scaling": {"capacityPerSecond": 42.0, "capacitySource": "Observed"}}
    cache = Cache()
    cache.observe_pipeline("ADDED", build_body(status))
    target = build_target(cache.pipelines["shop/orders"])
    assert target.restored.windows[0].per_second == 42.0
    assert target.config.capacity_per_second == 100


PAGE = """\
# HELP tocsin_consumer_processed_total Records that reached an end on every channel
tocsin_consumer_processed_total {processed}
tocsin_consumer_busy_slot_seconds_total {busy}
tocsin_consumer_concurrency 64.0
tocsin_consumer_in_flight 3.0
process_cpu_seconds_total 1.5
"""


async def test_consumers_counters_are_read_from_the_ready_pods(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1"), build_pod("b", "10.0.0.2"), build_pod("c", "10.0.0.3", is_ready=False)]
    room.pages = {"10.0.0.1": PAGE.format(processed=100, busy=64), "10.0.0.3": PAGE.format(processed=1, busy=1)}
    world = build_world(room)
    (target,) = world.list_targets()
    counters = await world.observe_consumers(target)
    assert counters is not None
    assert [(each.pod, each.processed_total, each.in_flight) for each in counters] == [("a", 100, 3)]


async def test_what_pods_measure_is_the_capacity_a_decision_is_made_with(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1")]
    for second in range(0, 60, 5):
        room.pages = {"10.0.0.1": PAGE.format(processed=50 * second, busy=32 * second)}
        await room.run()
    assert room.metric("capacity_per_second") == pytest.approx(100)
    assert room.metric("busy_share") == pytest.approx(0.5)


async def test_pods_are_listed_again_only_when_their_deployment_has_moved(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1")]
    room.pages = {"10.0.0.1": PAGE.format(processed=1, busy=1)}
    await room.run(passes=5)
    assert room.api.listed == 1
    room.see_deployment(1, "8")
    await room.run(passes=3)
    assert room.api.listed == 2


async def test_a_pod_that_does_not_answer_is_left_alone_for_a_while(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1")]
    world = build_world(room)
    (target,) = world.list_targets()
    assert await world.observe_consumers(target) == ()
    room.pages = {"10.0.0.1": PAGE.format(processed=1, busy=1)}
    room.clock.now += 20
    assert await world.observe_consumers(target) == ()
    room.clock.now += 41
    assert await world.observe_consumers(target)


async def test_counters_are_read_no_more_often_than_they_are_news(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1")]
    room.pages = {"10.0.0.1": PAGE.format(processed=1, busy=1)}
    world = build_world(room)
    (target,) = world.list_targets()
    answers = []
    for _ in range(30):
        answers.append(await world.observe_consumers(target) is not None)
        room.clock.now += 5
    reads = [index for index, is_read in enumerate(answers) if is_read]
    assert reads[0] == 0
    assert {later - earlier for earlier, later in pairwise(reads[1:])} == {3}


def test_the_pods_of_a_fleet_are_not_all_read_at_once(room: Room) -> None:
    (target,) = build_world(room).list_targets()
    fleet = [replace(target, key=f"shop/orders-{number}") for number in range(300)]
    slots = Counter((find_next_count(each, room.clock.now) - room.clock.now) // 5 % 3 for each in fleet)
    assert all(60 < count < 140 for count in slots.values())


async def test_an_action_leaves_its_candidates_in_the_status(room: Room) -> None:
    room.clusters.admin.answer = BACKLOG
    await room.run()
    (entry,) = room.api.statuses[0]["scaling"]["history"]
    assert (entry["replicasBefore"], entry["replicasAfter"]) == (1, 6)
    refused = {each["replicas"]: each.get("refusal", "") for each in entry["candidates"]}
    assert refused[4].startswith("drains the backlog in")
    assert refused[6] == ""


@pytest.mark.parametrize("forbids_marks", [False, True])
async def test_pods_are_priced_by_what_they_have_under_way_before_some_leave(room: Room, forbids_marks: bool) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1"), build_pod("b", "10.0.0.2")]
    page = PAGE.format(processed=1, busy=1)
    room.pages = {"10.0.0.1": page, "10.0.0.2": page.replace("in_flight 3.0", "in_flight 0.0")}
    room.api.forbids_marks = forbids_marks
    room.see_deployment(2, "8")
    world = build_world(room)
    (target,) = world.list_targets()
    await world.observe_consumers(target)
    await world.apply_scale(target, 1, "8")
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert room.api.marks == ({} if forbids_marks else {"a": {cost: "3"}, "b": {cost: "0"}})
    assert room.api.scaled == [("shop", "orders-consumer", 1, "8")]


async def test_pods_are_not_touched_when_more_are_wanted(room: Room) -> None:
    room.api.pods = [build_pod("a", "10.0.0.1")]
    room.pages = {"10.0.0.1": PAGE.format(processed=1, busy=1)}
    room.clusters.admin.answer = BACKLOG
    await room.run()
    assert room.api.scaled
    assert room.api.marks == {}


async def test_ingestion_in_mode_auto_follows_its_pods_requests(room: Room) -> None:
    auto = {"mode": "Auto", "targetRequestsPerSecond": 100}
    room.cache.observe_pipeline("MODIFIED", build_stored({**prefix("spec.ingestion.scaling", auto), **IDENTITY}))
    deployment = build_deployment(2, "9")
    deployment["metadata"]["name"] = "orders-ingestion"
    deployment["metadata"]["labels"]["app.kubernetes.io/component"] = "ingestion"
    room.cache.observe_child("MODIFIED", deployment)
    room.api.pods = [build_pod("a", "10.0.0.1"), build_pod("b", "10.0.0.2")]
    room.api.role = "ingestion"
    registry = CollectorRegistry()
    scaler = IngestionScaler(
        api=room.api,  # type: ignore[arg-type]
        cache=room.cache,
        pages=build_pages(room),
        clock=room.clock,
        registry=registry,
    )
    for look in range(10):
        room.pages = dict.fromkeys(("10.0.0.1", "10.0.0.2"), f"tocsin_ingestion_accepted_total {600 * look}\n")
        await scaler.run_pass()
        room.clock.now += 3
    assert room.api.scaled[0] == ("shop", "orders-ingestion", 4, "9")
    assert room.api.events[0][1] == "IngestionScaledOut"
    labels = {"namespace": "shop", "name": "orders"}
    assert registry.get_sample_value("tocsin_scaling_ingestion_requests_per_second", labels) == pytest.approx(400)


async def test_ingestion_in_mode_manual_is_left_alone(room: Room) -> None:
    pages = build_pages(room)
    registry = CollectorRegistry()
    scaler = IngestionScaler(
        api=room.api,  # type: ignore[arg-type]
        cache=room.cache,
        pages=pages,
        clock=room.clock,
        registry=registry,
    )
    await scaler.run_pass()
    assert (room.api.listed, room.api.scaled) == (0, [])
