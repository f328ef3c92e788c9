"""A fleet of pipelines on real Kafka clusters, with the Kubernetes API stood in for where the operator meets it.

An API server of 1,000 pipelines and their pods is more than a small machine has; what is wanted of it here is that it
is left in peace, and that can be counted at `KubernetesAPI`. What a server makes of each call, tests/e2e ask one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines import build_stored, prefix
from tocsin_core.admin import KafkaAdmin
from tocsin_core.settings import KafkaConnection
from tocsin_operator.cache import Cache
from tocsin_operator.kafka_clusters import KafkaClusters
from tocsin_operator.model import Pipeline
from tocsin_operator.pods import PageReader

NAMESPACE = "fleet"
PARTITIONS = 4
TOPICS_AT_ONCE = 100
RECORDS = 5
COMMITS = 50
ESTABLISHED = "01"
"""A connection's state in /proc/net/tcp: proc(5), include/net/tcp_states.h."""


@dataclass
class StandInAPI:
    """Knows the fleet's pods, and counts what is asked and what is written."""

    pods: Mapping[str, Sequence[str]]
    """The addresses of each pipeline's consumers, by its name."""
    listed: int = 0
    writes: int = 0
    scaled: list[str] = field(default_factory=list)

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[dict[str, Any]]:
        """Return a pipeline's ready pods."""
        assert (kind, namespace) == ("Pod", NAMESPACE)
        self.listed += 1
        labels = dict(each.split("=", 1) for each in selectors["labelSelector"].split(","))
        name = labels["app.kubernetes.io/instance"]
        ready = [{"type": "Ready", "status": "True"}]
        return [
            {"metadata": {"name": f"{name}-{number}"}, "status": {"podIP": address, "conditions": ready}}
            for number, address in enumerate(self.pods[name])
        ]

    async def apply_scale(self, namespace: str, deployment: str, replicas: int, **_: str) -> dict[str, Any]:
        """Count a write."""
        self.writes += 1
        self.scaled.append(f"{namespace}/{deployment}: {replicas}")
        return {}

    async def apply_status(self, pipeline: Pipeline, status: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Count a write."""
        del pipeline, status, field_manager
        self.writes += 1
        return {}

    async def annotate_pod(self, namespace: str, name: str, annotations: dict[str, str]) -> dict[str, Any]:
        """Count a write."""
        del namespace, name, annotations
        self.writes += 1
        return {}

    async def emit_event(self, pipeline: Pipeline, **_: str) -> None:
        """Count a write."""
        del pipeline
        self.writes += 1


class CountingReader(PageReader):
    """Reads pages as the operator does, and counts those that came and those that did not."""

    def __init__(self, *, port: int) -> None:
        super().__init__(port=port)
        self.read_pages = 0
        self.missed_pages = 0
        self.page_bytes = 0

    async def read(self, address: str) -> str | None:
        """Return the page."""
        page = await super().read(address)
        self.read_pages += page is not None
        self.missed_pages += page is None
        self.page_bytes = len(page) if page is not None else self.page_bytes
        return page


class CountingClusters(KafkaClusters):
    """Opens admin clients as the operator does, and counts them."""

    def __init__(self, api: Any) -> None:
        super().__init__(api, open_admin=self._open)
        self.opened = 0

    def _open(self, connection: KafkaConnection, **options: Any) -> KafkaAdmin:
        self.opened += 1
        return KafkaAdmin(connection, **options)


def name_pipeline(number: int) -> str:
    """Return the name of one pipeline of the fleet, which its topic and its Deployment have too."""
    return f"p{number:04}"


def fill_cache(cache: Cache, brokers: Sequence[str], count: int, *, replicas: int, **scaling: Any) -> None:
    """Have the operator know so many pipelines, spread over the clusters, each with a Deployment that is ready."""
    for number in range(count):
        name = name_pipeline(number)
        cache.observe_pipeline("ADDED", _build_pipeline(name, brokers[number % len(brokers)], scaling))
        cache.observe_child("ADDED", _build_deployment(name, replicas))


def _build_pipeline(name: str, broker: str, scaling: Mapping[str, Any]) -> dict[str, Any]:
    identity = {"metadata.name": name, "metadata.namespace": NAMESPACE, "metadata.uid": name}
    kafka = {"spec.kafka.bootstrapServers": [broker], "spec.kafka.topic.name": name}
    channels = [{"name": each, "type": "Log"} for each in ("push", "mail", "hook")]
    return build_stored(
        {**identity, **kafka, "spec.consumer.channels": channels, **prefix("spec.consumer.scaling", scaling)}
    )


def _build_deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "tocsin",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "consumer",
        "app.kubernetes.io/managed-by": "tocsin-operator",
    }
    owner = {
        "apiVersion": "tocsin.dev/v1alpha1",
        "kind": "NotificationPipeline",
        "name": name,
        "uid": name,
        "controller": True,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-consumer",
            "namespace": NAMESPACE,
            "uid": name,
            "resourceVersion": "1",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas, "readyReplicas": replicas},
    }


def create_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Create the topics, put a few records into each, and commit them for the pipelines' groups."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for start in range(0, len(names), TOPICS_AT_ONCE):
        futures = admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names[start : start + TOPICS_AT_ONCE]])
        for future in futures.values():
            future.result(120)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50})
    for name in names:
        for partition in range(PARTITIONS):
            for _ in range(RECORDS):
                producer.produce(name, b"{}", partition=partition)
        producer.poll(0)
    assert producer.flush(120) == 0
    left = list(names)
    for _ in range(COMMITS):
        left = _commit_all(admin, left)
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(f"the groups of {left} cannot commit")


def _commit_all(admin: AdminClient, names: Sequence[str]) -> list[str]:
    """Commit the ends of these topics for their groups; return those that a coordinator was not ready for."""
    futures = {}
    for name in names:
        stands = [TopicPartition(name, partition, RECORDS) for partition in range(PARTITIONS)]
        request = ConsumerGroupTopicPartitions(f"{NAMESPACE}.{name}", stands)
        (futures[name],) = admin.alter_consumer_group_offsets([request], request_timeout=10).values()
    left = []
    for name, future in futures.items():
        try:
            is_done = not any(each.error for each in future.result(20).topic_partitions)
        except KafkaException:
            is_done = False
        left += [] if is_done else [name]
    return left


def count_connections(bootstrap: str) -> int:
    """Return how many TCP connections this process has to a broker of this machine."""
    port = f"{int(bootstrap.rpartition(':')[2]):04X}"
    ours = {_read_link(each) for each in Path("/proc/self/fd").iterdir()}
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(
        fields[2].endswith(f":{port}") and fields[3] == ESTABLISHED and f"socket:[{fields[9]}]" in ours
        for fields in lines
    )


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # it was closed since it was listed
