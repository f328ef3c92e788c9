"""One trace on the real cluster: three pipelines are made, fed with the same arrivals at once, watched, and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from bench.cluster.arms import FAST, KEDA, POLICIES, SLOW, SLOW_DELAY_MS, Arm, build_arm
from bench.cluster.judge import Sample, find_silence, judge
from bench.cluster.keda import build_scaled_object, wait_until_scaling
from bench.cluster.keep import keep
from bench.cluster.traces import DELAY_MS, HANGING, PARTITIONS, TERMS, Arrival, Dealer, build_recipient
from bench.cluster.watch import Watch
from bench.delivery.stage import Sink
from bench.errors import BenchError
from bench.ledger import Ledger
from e2e.cluster import PIPELINES, Kubectl, wait_until
from tocsin_cli.simulate.run import Run
from tocsin_cli.simulate.scenario import Scenario
from tocsin_core.codec import encode, make_traceparent
from tocsin_core.errors import TocsinError
from tocsin_core.message import Notification
from tocsin_operator.apply import KubernetesAPI

SEED = 5
TICKS_PER_SECOND = 10
LOOK_SECONDS = 1.0
READY_SECONDS = 300
GONE_SECONDS = 180
MOST_SILENT_SECONDS = 10.0


@dataclass(frozen=True)
class Site:
    """Where it happens: a namespace that the operator looks after, a broker and a receiver that pods reach."""

    kubectl: Kubectl
    brokers: str
    sink: Sink


def measure(site: Site, scenario: Scenario) -> list[Run]:
    """Run all arms through one trace and return what each came to, in the order of POLICIES.

    Raise BenchError where the cluster was not seen often enough to judge it.
    """
    arms = [Arm(scenario.name, policy) for policy in POLICIES]
    try:
        _raise_arms(site, arms)
        samples = asyncio.run(_watch_and_feed(site, scenario, arms))
        keep(scenario.name, samples, site.kubectl)
    finally:
        _remove_arms(site, arms)
    silence = max(find_silence(each) for each in samples.values())
    if silence > MOST_SILENT_SECONDS:
        raise BenchError(f"{scenario.name}: the cluster was not seen for {silence:.0f} s, so nothing can be said of it")
    return [judge(arm.policy, samples[arm], scenario, max_lag_seconds=TERMS.max_lag_seconds) for arm in arms]


def _raise_arms(site: Site, arms: Sequence[Arm]) -> None:
    for arm in arms:
        fast = site.sink.open(f"{arm.name}-{FAST}", delay_ms=DELAY_MS)
        slow = site.sink.open(f"{arm.name}-{SLOW}", delay_ms=SLOW_DELAY_MS)
        site.kubectl.apply(build_arm(arm, brokers=site.brokers, fast_url=fast, slow_url=slow))
    for arm in arms:
        wait_until(
            partial(_is_complete, site.kubectl, arm),
            seconds=READY_SECONDS,
            what=f"the first consumers of {arm.name} are ready",
            explain=lambda: site.kubectl.ask("get", "npl,deployments,pods").out,
        )


def _is_complete(kubectl: Kubectl, arm: Arm) -> bool:
    return bool(kubectl.read("deployment", arm.deployment).get("status", {}).get("readyReplicas") == arm.first_replicas)


def _start_keda(site: Site, arm: Arm) -> None:
    site.kubectl.apply(build_scaled_object(arm.name, brokers=site.brokers, topic=arm.name, group=arm.name))
    wait_until_scaling(site.kubectl, arm.name)


def _remove_arms(site: Site, arms: Sequence[Arm]) -> None:
    names = [arm.name for arm in arms]
    keda = [arm.name for arm in arms if arm.policy == KEDA]
    site.kubectl.ask("delete", "scaledobjects", "--ignore-not-found", *keda)
    site.kubectl.ask("delete", PIPELINES, "--ignore-not-found", *names)
    wait_until(
        lambda: not site.kubectl.list("pods"),
        seconds=GONE_SECONDS,
        what="the pods of the last trace are gone",
        explain=lambda: site.kubectl.ask("get", "pods").out,
    )


async def _watch_and_feed(site: Site, scenario: Scenario, arms: Sequence[Arm]) -> dict[Arm, list[Sample]]:
    ledgers = {arm: Ledger(PARTITIONS) for arm in arms}
    feed = Feed(site.brokers, ledgers)
    kubernetes = await KubernetesAPI.connect()
    watch = Watch(AdminClient({"bootstrap.servers": site.brokers}), kubernetes, site.kubectl.namespace)
    try:
        await _prime(feed, watch, ledgers)
        for arm in arms:
            if arm.policy == KEDA:
                await asyncio.to_thread(_start_keda, site, arm)
        start = time.monotonic()
        looking = asyncio.create_task(_look_on(watch, ledgers, start, scenario.seconds))
        try:
            await feed.run(scenario, start)
            return await looking
        finally:
            looking.cancel()
    finally:
        feed.close()
        await kubernetes.close()


async def _prime(feed: Feed, watch: Watch, ledgers: Mapping[Arm, Ledger]) -> None:
    """Have every group finish a record of each partition: a group that never committed looks like one that lags."""
    for partition in range(PARTITIONS):
        feed.send(Arrival(partition, build_recipient(partition, "0")))
    feed.flush()
    deadline = time.monotonic() + READY_SECONDS
    while any(ledger.lag for ledger in ledgers.values()):
        if time.monotonic() > deadline:
            raise BenchError(f"the first records are not delivered within {READY_SECONDS} s")
        await asyncio.sleep(LOOK_SECONDS)
        await watch.look(ledgers, start=time.monotonic())


async def _look_on(watch: Watch, ledgers: Mapping[Arm, Ledger], start: float, seconds: int) -> dict[Arm, list[Sample]]:
    samples: dict[Arm, list[Sample]] = {arm: [] for arm in ledgers}
    while (began := time.monotonic()) < start + seconds:
        # A look that fails is a gap; too long a one voids the run.
        with contextlib.suppress(KafkaException, TocsinError):
            for arm, sample in (await watch.look(ledgers, start=start)).items():
                samples[arm].append(sample)
        await asyncio.sleep(max(0.0, began + LOOK_SECONDS - time.monotonic()))
    return samples


class Feed:
    """Produces the same notifications to every arm's topic, and notes when."""

    def __init__(self, brokers: str, ledgers: Mapping[Arm, Ledger]) -> None:
        self._producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "enable.idempotence": True})
        self._ledgers = ledgers
        self._count = 0

    async def run(self, scenario: Scenario, start: float) -> None:
        """Produce what is due, ten times a second, until the scenario is over."""
        dealer = Dealer(scenario, seed=SEED)
        for tick in range(scenario.seconds * TICKS_PER_SECOND):
            for arrival in dealer.deal(tick // TICKS_PER_SECOND, 1 / TICKS_PER_SECOND):
                self.send(arrival)
            self._producer.poll(0)
            await asyncio.sleep(max(0.0, start + (tick + 1) / TICKS_PER_SECOND - time.monotonic()))

    def send(self, arrival: Arrival) -> None:
        """Hand one notification to the producer, for each arm."""
        self._count += 1
        is_hanging = arrival.recipient == build_recipient(arrival.partition, HANGING)
        record = encode(
            Notification(
                id=f"bench-{self._count:08}",
                from_id="1",
                to_id=arrival.recipient,
                message="Your order is on its way.",
                channels=[SLOW if is_hanging else FAST],
            ),
            source="/pipelines/bench/scaling",
            traceparent=make_traceparent(),
            accepted_at=datetime.now(UTC),
        )
        for arm, ledger in self._ledgers.items():
            ledger.produced_at[arrival.partition].append(time.monotonic())
            self._producer.produce(
                arm.name, record.value, record.key, partition=arrival.partition, headers=list(record.headers)
            )

    def flush(self) -> None:
        """Return when all is stored. Raise BenchError where Kafka does not take it."""
        if self._producer.flush(10) != 0:
            raise BenchError("Kafka does not store what is produced")

    def close(self) -> None:
        """Let the producer go; what it still holds matters to nobody."""
        self._producer.purge()
        self._producer.flush(1)
