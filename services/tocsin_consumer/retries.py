"""Moving a delivery to a retry topic, in the order that the pipeline asks for.

Relaxed, a delivery that waits in a retry topic is overtaken by later ones. Strict, those follow it: before a delivery
goes it asks for its turn, before it moves it takes its place in the queue, and when it has ended it leaves.
"""

from __future__ import annotations

import math

from tocsin_consumer.journey import Delivery
from tocsin_consumer.order import Behind, Order, Place
from tocsin_consumer.retry_topics import RetryTopics
from tocsin_consumer.steps import Postponement
from tocsin_core.retry import Defer, Retry, Tier, decide_follow

MARGIN_SECONDS = 60.0
"""How long after its notification's life a delivery may still stand in the queue: it comes back, expired, to leave."""


class Retries:
    """The retry topics of one pipeline and the order in them."""

    def __init__(self, topics: RetryTopics, order: Order) -> None:
        self._topics = topics
        self._order = order

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Return the tiers that can be used at this moment."""
        return self._topics.tiers

    @property
    def is_strict(self) -> bool:
        """Return whether anybody waits for anybody."""
        return self._order.is_kept

    async def ask_turn(self, delivery: Delivery) -> Retry | Defer | None:
        """Return None if it may go, else how it waits for the one before it. Raise OrderUnavailable."""
        if not self._order.is_kept:
            return None
        turn = await self._order.ask(_place(delivery))
        if not isinstance(turn, Behind):
            delivery.is_queued = turn.is_queued
            return None
        # A hand-over does not wait for others.
        waited_seconds = math.inf if delivery.journey.assignment.is_draining else delivery.waited_seconds
        return decide_follow(due_in_seconds=turn.due_in_seconds, waited_seconds=waited_seconds, tiers=self.tiers)

    async def move(self, delivery: Delivery, step: Postponement, *, live_seconds: float) -> None:
        """Return when the delivery is safe in its retry topic, and those behind it know. Raise OrderUnavailable, or
        KafkaFailure if the broker does not take it; doing it again does no harm.

        `live_seconds` is how long its notification is worth sending yet.
        """
        delay_seconds = step.tier.delay_seconds
        await self._order.queue(
            _place(delivery),
            due_in_seconds=delay_seconds,
            ends_in_seconds=max(live_seconds, 0.0) + delay_seconds + MARGIN_SECONDS,
        )
        await self._topics.defer(delivery.journey.origin, step.tier, step.deferral)

    async def leave(self, delivery: Delivery) -> None:
        """Let those go that waited for a delivery. Raise OrderUnavailable."""
        await self._order.leave(_place(delivery))


def _place(delivery: Delivery) -> Place:
    origin = delivery.journey.origin
    return Place(delivery.channel, delivery.lane.key, origin.partition, origin.offset)
