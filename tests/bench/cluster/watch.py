"""What is seen of the arms each second, by clients of the benchmark's own: commits, members, Deployments.

Nothing that Tocsin or KEDA says of itself is used. The commits are held against the ledger of what was produced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from bench.cluster.arms import Arm
from bench.cluster.judge import Sample
from bench.ledger import Ledger
from tocsin_operator.apply import KubernetesAPI

REQUEST_SECONDS = 5.0


class Watch:
    """Looks at all arms of a trace at once."""

    def __init__(self, kafka: AdminClient, kubernetes: KubernetesAPI, namespace: str) -> None:
        self._kafka = kafka
        self._kubernetes = kubernetes
        self._namespace = namespace

    async def look(self, ledgers: Mapping[Arm, Ledger], *, start: float) -> dict[Arm, Sample]:
        """Note in each ledger what is finished, and return what is seen. Raise whatever a client raises."""
        arms = list(ledgers)
        owners, deployments = await asyncio.gather(
            asyncio.to_thread(self._read_groups, arms, ledgers),
            self._kubernetes.list("Deployment", self._namespace),
        )
        now = time.monotonic()
        counts = {each["metadata"]["name"]: each for each in deployments}
        return {
            arm: Sample(
                at=now - start,
                age_seconds=ledgers[arm].measure_age(now),
                lag=ledgers[arm].lag,
                replicas=counts[arm.deployment]["spec"]["replicas"],
                ready=counts[arm.deployment].get("status", {}).get("readyReplicas", 0),
                owners=owners[arm],
            )
            for arm in arms
        }

    def _read_groups(self, arms: Sequence[Arm], ledgers: Mapping[Arm, Ledger]) -> dict[Arm, dict[int, str]]:
        # Described first: a request for commits that meets a coordinator on the move takes librdkafka down.
        groups = self._kafka.describe_consumer_groups([arm.name for arm in arms], request_timeout=REQUEST_SECONDS)
        owners = {arm: read_owners(groups[arm.name].result()) for arm in arms}
        for arm in arms:
            request = [ConsumerGroupTopicPartitions(arm.name)]
            [found] = self._kafka.list_consumer_group_offsets(request, request_timeout=REQUEST_SECONDS).values()
            for each in found.result().topic_partitions:
                if each.topic == arm.name and each.offset >= 0:
                    ledgers[arm].finished[each.partition] = each.offset
        return owners


def read_owners(group: Any) -> dict[int, str]:
    """Return which member has which partition of the topic that is called like the group."""
    return {
        each.partition: member.member_id
        for member in group.members
        for each in member.assignment.topic_partitions
        if each.topic == group.group_id
    }
