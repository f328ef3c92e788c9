"""Hold the simulated plant against a real broker: the same load, the same rules, pods that sleep instead of sending.

    PYTHONPATH=tests .venv/bin/python -m bench.plant --picture plant.svg

The real side is an Apache Kafka, a consumer group of threads that take a fixed time for each record, and the operator's
own scaling loop. The simulated side gets the arrivals that were really produced. Both curves go into one picture; the
last line is JSON with how far they are apart. It takes as long as its load, five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer

from bench.ledger import Ledger
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.simulate.picture import draw_svg
from tocsin_cli.simulate.policies.base import Terms
from tocsin_cli.simulate.policies.tocsin import Tocsin
from tocsin_cli.simulate.run import Run, build_score, simulate_policy
from tocsin_cli.simulate.scenario import Pods, Scenario
from tocsin_core.admin import KafkaAdmin
from tocsin_core.settings import KafkaConnection
from tocsin_operator.clock import SteadyClock
from tocsin_operator.scaling.loop import ScalingLoop
from tocsin_operator.scaling.model import Config, ConsumerCounters, Replicas
from tocsin_operator.scaling.ports import Answer, Report, Seen, Target

TOPIC, GROUP = "plant", "plant"
PARTITIONS = 12
PODS = Pods(per_second=40.0, startup_seconds=5.0, pause_seconds=1, commit_seconds=5)
CONFIG = Config(
    max_lag_seconds=15, interval_seconds=2, cooldown_seconds=20, down_window_seconds=40, max_replicas=PARTITIONS
)
TERMS = Terms(max_lag_seconds=CONFIG.max_lag_seconds, max_replicas=PARTITIONS, capacity_per_second=PODS.per_second)
PLAN = [30] * 60 + [150] * 90 + [30] * 150


class SleepingPod:
    """A consumer in a thread that starts late and takes a fixed time for each record."""

    def __init__(self, number: int, brokers: str, ledger: Ledger) -> None:
        self.name = f"pod-{number}"
        self.is_ready = False
        self.processed = 0
        self.busy_seconds = 0.0
        self._brokers = brokers
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name)
        self._thread.start()

    def leave(self) -> None:
        """Ask it to finish what it holds and leave the group."""
        self._stop.set()

    def join(self) -> None:
        """Wait until it has left."""
        self._thread.join(30)

    def _run(self) -> None:
        if self._stop.wait(PODS.startup_seconds):
            return
        consumer = Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": GROUP,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": PODS.commit_seconds * 1_000,
                # Enough that fetching never limits it, and little enough that no partition waits for another's.
                "queued.min.messages": 100,
                "max.partition.fetch.bytes": 3_000,
            }
        )
        consumer.subscribe([TOPIC], on_assign=self._note_assigned)
        due = time.monotonic()
        while not self._stop.is_set():
            message = consumer.poll(0.2)
            if message is None or message.error():
                due = time.monotonic()
                continue
            due = max(due, time.monotonic() - 0.2) + 1 / PODS.per_second
            time.sleep(max(0.0, due - time.monotonic()))
            self._note_finished(message)
        consumer.close()

    def _note_assigned(self, *_: object) -> None:
        self.is_ready = True

    def _note_finished(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self._ledger.finished[partition] = max(self._ledger.finished[partition], offset + 1)
        self.processed += 1
        self.busy_seconds += 1 / PODS.per_second


class World:
    """What the scaling loop is plugged into: a real broker, and threads in the place of a Deployment."""

    def __init__(self, brokers: str, admin: KafkaAdmin, ledger: Ledger) -> None:
        self._brokers = brokers
        self._admin = admin
        self._ledger = ledger
        self._started = 0
        self._pods: list[SleepingPod] = []
        self._left: list[SleepingPod] = []
        self.target = Target("bench/plant", "1", "one", GROUP, TOPIC, CONFIG)

    @property
    def replicas(self) -> int:
        """Return how many pods are asked for."""
        return len(self._pods)

    def scale_to(self, replicas: int) -> None:
        """Start pods, or let the youngest leave."""
        while len(self._pods) < replicas:
            self._pods.append(SleepingPod(self._started, self._brokers, self._ledger))
            self._started += 1
        while len(self._pods) > replicas:
            self._left.append(self._pods.pop())
            self._left[-1].leave()

    def stop(self) -> None:
        """Let all leave and wait for them."""
        self.scale_to(0)
        for pod in self._left:
            pod.join()

    def list_targets(self) -> Iterable[Target]:
        return (self.target,)

    async def observe_groups(self, cluster: str, targets: Sequence[Target]) -> Mapping[str, Answer]:
        del cluster
        answers = await self._admin.observe_groups([(each.group, each.topic) for each in targets])
        return {each.key: answers[each.group, each.topic] for each in targets}

    async def observe_replicas(self, target: Target) -> Seen | None:
        del target
        return Seen(Replicas(spec=len(self._pods), ready=sum(pod.is_ready for pod in self._pods)))

    async def observe_consumers(self, target: Target) -> tuple[ConsumerCounters, ...] | None:
        del target
        return tuple(
            ConsumerCounters(
                pod=pod.name, processed_total=pod.processed, busy_slot_seconds_total=pod.busy_seconds, concurrency=1
            )
            for pod in self._pods
            if pod.is_ready
        )

    async def apply_scale(self, target: Target, replicas: int, version: str) -> None:
        del target, version
        self.scale_to(replicas)

    async def publish(self, report: Report) -> None:
        if report.has_acted and report.decision is not None:
            print(f"{report.decision.inputs.replicas} -> {report.decision.replicas}: {report.decision.message}")


async def run_real(plan: Sequence[int]) -> tuple[Run, list[float]]:
    """Produce the plan to a real broker; return what was seen each second, and what was really produced."""
    ages, counts, arrivals = array("i"), array("i"), []
    with EmbeddedKafka() as kafka:
        admin = KafkaAdmin(KafkaConnection(brokers=[kafka.bootstrap_servers]), client_id="bench")
        await admin.create_topic(TOPIC, partitions=PARTITIONS)
        ledger = Ledger(PARTITIONS)
        world = World(kafka.bootstrap_servers, admin, ledger)
        world.scale_to(1)
        await asyncio.sleep(PODS.startup_seconds + 2)  # the simulation starts with a pod that is ready, too
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20, "log_level": 2})
        loop = ScalingLoop(observer=world, actor=world, publisher=world, clock=SteadyClock())
        running = asyncio.create_task(loop.run())
        try:
            start, sent = time.monotonic(), 0
            for second, count in enumerate(plan):
                sent = _produce(producer, ledger, sent, count)
                arrivals.append(float(count))
                await asyncio.sleep(max(0.0, start + second + 1 - time.monotonic()))
                ages.append(int(ledger.measure_age(time.monotonic())))
                counts.append(world.replicas)
        finally:
            producer.flush(5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.to_thread(world.stop)
            await admin.close()
    return Run("real", build_score(ages, counts, 0, CONFIG.max_lag_seconds), ages, counts), arrivals


def _produce(producer: Producer, ledger: Ledger, sent: int, count: int) -> int:
    for number in range(sent, sent + count):
        partition = number % PARTITIONS
        producer.produce(TOPIC, b"{}", partition=partition)
        ledger.produced_at[partition].append(time.monotonic())
    producer.poll(0)
    return sent + count


def compare(real: Run, simulated: Run) -> dict[str, float]:
    """Return how far the curves are apart: means over the seconds, and each side's worst lag and pods."""
    pairs = list(zip(real.lag_seconds, simulated.lag_seconds, strict=True))
    counts = list(zip(real.replicas, simulated.replicas, strict=True))
    return {
        "lag_seconds_apart": round(sum(abs(one - other) for one, other in pairs) / len(pairs), 2),
        "replicas_apart": round(sum(abs(one - other) for one, other in counts) / len(counts), 2),
        "real_max_lag_seconds": real.score.max_lag_seconds,
        "plant_max_lag_seconds": simulated.score.max_lag_seconds,
        "real_replica_seconds": real.score.replica_seconds,
        "plant_replica_seconds": simulated.score.replica_seconds,
        "real_actions": real.score.actions,
        "plant_actions": simulated.score.actions,
    }


def main() -> int:
    """Run both sides and print how far they are apart."""
    parser = argparse.ArgumentParser(prog="bench.plant", description=__doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw both curves")
    arguments = parser.parse_args()
    real, arrivals = asyncio.run(run_real(PLAN))
    scenario = Scenario("plant", arrivals, partitions=PARTITIONS, pods=PODS, warmup_seconds=0)
    simulated = simulate_policy(scenario, Tocsin(TERMS, config=CONFIG), "plant", TERMS, seed=1)
    if arguments.picture is not None:
        arguments.picture.write_text(draw_svg(scenario, [real, simulated], max_lag_seconds=CONFIG.max_lag_seconds))
    print(json.dumps(compare(real, simulated)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
