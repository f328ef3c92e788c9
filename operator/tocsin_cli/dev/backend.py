"""What a pipeline stands on: a Kafka and, where the resource asks for it, a store; embedded or somebody else's.

The embedded servers are imported where they are started: their libraries take a second, which `--brokers` can save.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tocsin_cli.dev.plan import Plan
from tocsin_cli.dev.screen import Screen
from tocsin_cli.dev.tally import KafkaFacts

QUICK_GROUPS = {
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
}
"""Members on one machine hear of a rebalance within a second instead of five, and a killed one is missed after six
seconds instead of forty-five: nobody watches a screen that long."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The addresses of both."""

    kafka: KafkaFacts
    redis_url: str | None

    @property
    def brokers(self) -> list[str]:
        """Return Kafka's addresses as a list."""
        return self.kafka.brokers.split(",")


async def start_backend(plan: Plan, screen: Screen, stack: AsyncExitStack) -> Backend:
    """Start what is not given; `stack` stops it. Raise EmbeddedError saying why and what to do instead."""
    store = asyncio.create_task(_start_store(plan, screen, stack))
    try:
        kafka = await _start_kafka(plan, screen, stack)
        return Backend(kafka, await store)
    finally:
        store.cancel()


async def _start_kafka(plan: Plan, screen: Screen, stack: AsyncExitStack) -> KafkaFacts:
    if plan.brokers:
        return KafkaFacts(brokers=",".join(plan.brokers), is_embedded=False)
    from tocsin_cli.embedded.jars import KAFKA_VERSION  # noqa: PLC0415 - see above
    from tocsin_cli.embedded.kafka import EmbeddedKafka  # noqa: PLC0415

    server = EmbeddedKafka(properties=QUICK_GROUPS, on_progress=_from_thread(screen.progress))
    stack.push_async_callback(asyncio.to_thread, server.stop)
    await asyncio.to_thread(server.start)
    screen.step(f"Apache Kafka {KAFKA_VERSION} serves on {server.bootstrap_servers}")
    return KafkaFacts(brokers=server.bootstrap_servers, is_embedded=True, version=KAFKA_VERSION)


async def _start_store(plan: Plan, screen: Screen, stack: AsyncExitStack) -> str | None:
    if plan.redis_url is not None or plan.manifest.pipeline.spec.redis is None:
        return plan.redis_url
    from tocsin_cli.embedded.valkey import EmbeddedValkey  # noqa: PLC0415 - see above

    server = EmbeddedValkey()
    stack.push_async_callback(asyncio.to_thread, server.stop)
    await asyncio.to_thread(server.start)
    screen.step(f"Valkey serves on {server.url}")
    return server.url


def _from_thread(show: Callable[[str], None]) -> Callable[[str], None]:
    loop = asyncio.get_running_loop()

    def hand_over(text: str) -> None:
        loop.call_soon_threadsafe(show, text)

    return hand_over
