"""One loop for all pipelines: ordered keys, bounded workers, one question per Kafka cluster and pass.

A timer or a task per pipeline was refused: a thousand of them would ask a thousand unaligned questions. A cluster that
does not answer delays nobody else: each cluster's pipelines are one task, and while it runs, only theirs wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import structlog

from tocsin_core.errors import TocsinError
from tocsin_core.lag import PartitionOffsets
from tocsin_operator.scaling.decide import decide
from tocsin_operator.scaling.model import ConsumerCounters, Decision, Observation, Quality, State
from tocsin_operator.scaling.ports import (
    Actor,
    Answer,
    Clock,
    Observer,
    Publisher,
    Report,
    ScaleConflict,
    Seen,
    Target,
)
from tocsin_operator.scaling.schedule import Schedule

WORKERS = 20
TICK_SECONDS = 1.0  # how soon a new pipeline is noticed
DECISIONS_PER_PASS = 3  # how often a conflicting write is decided again before the next pass

log = structlog.get_logger(__name__)


class ScalingLoop:
    """Observes, decides, writes and publishes, for each target once per its interval."""

    def __init__(
        self, *, observer: Observer, actor: Actor, publisher: Publisher, clock: Clock, workers: int = WORKERS
    ) -> None:
        self._observer = observer
        self._actor = actor
        self._publisher = publisher
        self._clock = clock
        self._workers = asyncio.Semaphore(workers)
        self._schedule = Schedule()
        self._states: dict[str, tuple[str, State]] = {}
        self._batches: dict[str, asyncio.Task[None]] = {}
        self.last_tick_seconds = clock.now_seconds()

    async def run(self) -> None:
        """Loop until cancelled."""
        try:
            while True:
                self._start_due()
                wait_seconds = self._schedule.seconds_until_next(self._clock.now_seconds())
                await self._clock.sleep(min(TICK_SECONDS, max(wait_seconds, TICK_SECONDS / 10)))
        finally:
            batches = list(self._batches.values())
            for batch in batches:
                batch.cancel()
            await asyncio.gather(*batches, return_exceptions=True)

    async def run_pass(self) -> None:
        """Handle everything that is due now, and return when it is done."""
        self._start_due()
        await asyncio.gather(*self._batches.values())

    def _start_due(self) -> None:
        """Start one task for each cluster that has something due and is not being asked already."""
        self.last_tick_seconds = now_seconds = self._clock.now_seconds()
        targets = {target.key: target for target in self._observer.list_targets()}
        self._forget_others(set(targets))
        due: dict[str, list[Target]] = defaultdict(list)
        for key in sorted(targets):
            if self._schedule.is_due(key, now_seconds):
                due[targets[key].cluster].append(targets[key])
        for cluster, batch in due.items():
            if cluster not in self._batches:
                task = asyncio.create_task(self._run_batch(cluster, batch), name=f"scaling {cluster}")
                self._batches[cluster] = task
                task.add_done_callback(partial(self._end_batch, cluster))

    def _end_batch(self, cluster: str, _: asyncio.Task[None]) -> None:
        self._batches.pop(cluster, None)

    def _forget_others(self, keys: set[str]) -> None:
        self._schedule.keep_only(keys)
        self._states = {key: state for key, state in self._states.items() if key in keys}

    async def _run_batch(self, cluster: str, targets: Sequence[Target]) -> None:
        asked_seconds = self._clock.now_seconds()
        answers = await self._ask(cluster, targets)
        answered_seconds = self._clock.now_seconds()
        await asyncio.gather(
            *(
                self._handle(
                    target, answers[target.key], asked_seconds=asked_seconds, answered_seconds=answered_seconds
                )
                for target in targets
            )
        )

    async def _ask(self, cluster: str, targets: Sequence[Target]) -> dict[str, Answer]:
        async with self._workers:
            try:
                answers = await self._observer.observe_groups(cluster, targets)
            except TocsinError as error:
                return dict.fromkeys((target.key for target in targets), error)
            except Exception as error:  # a loop top: one cluster's bug must not stop the others
                log.exception("offsets not read", cluster=cluster)
                failure = TocsinError(f"reading offsets failed: {error!r}")
                return dict.fromkeys((target.key for target in targets), failure)
        silent = TocsinError("Kafka's answer does not mention this pipeline's group")
        return {target.key: answers.get(target.key, silent) for target in targets}

    async def _handle(self, target: Target, answer: Answer, *, asked_seconds: float, answered_seconds: float) -> None:
        """Decide for one target, write, publish, and set its next time. Nothing gets past here but cancellation."""
        async with self._workers:
            try:
                age_seconds = max(0.0, self._clock.now_seconds() - asked_seconds)
                report = await self._decide(target, answer, answered_seconds, age_seconds)
            except TocsinError as error:
                report = _report_failure(target, answer, answered_seconds, error)
            except Exception as error:  # a loop top
                log.exception("scaling failed", pipeline=target.key)
                report = _report_failure(target, answer, answered_seconds, error)
            is_published = await self._publish(report)
        interval_seconds, now_seconds = target.config.interval_seconds, self._clock.now_seconds()
        if report.failure or report.kafka_failure or not is_published:
            promise_seconds = target.config.max_lag_seconds
            self._schedule.note_failed(target.key, now_seconds, interval_seconds, promise_seconds=promise_seconds)
        else:
            self._schedule.note_done(target.key, now_seconds, interval_seconds)

    async def _decide(self, target: Target, answer: Answer, time_seconds: float, age_seconds: float) -> Report:
        prior = self._recall(target)
        kafka_failure = answer if isinstance(answer, TocsinError) else None
        consumers = await self._observer.observe_consumers(target) if target.config.is_sized else None
        for _ in range(DECISIONS_PER_PASS):
            seen = await self._observer.observe_replicas(target)
            if seen is None:
                return Report(target, time_seconds, kafka_failure=kafka_failure)
            observation = build_observation(answer, seen, consumers, time_seconds=time_seconds, age_seconds=age_seconds)
            decision, state = decide(observation, prior, target.config)
            has_acted = await self._act(target, decision, seen)
            if has_acted or not decision.is_action:
                break
        self._states[target.key] = (target.uid, state)
        return Report(target, time_seconds, observation, decision, state, kafka_failure, has_acted=has_acted)

    async def _act(self, target: Target, decision: Decision, seen: Seen) -> bool:
        if not decision.is_action:
            return False
        try:
            await self._actor.apply_scale(target, decision.replicas, seen.version)
        except ScaleConflict:
            log.info("replicas changed while deciding", pipeline=target.key)
            return False
        return True

    async def _publish(self, report: Report) -> bool:
        try:
            await self._publisher.publish(report)
        except Exception:  # a loop top: what cannot be told is still decided
            log.exception("scaling not published", pipeline=report.target.key)
            return False
        return True

    def _recall(self, target: Target) -> State:
        uid, state = self._states.get(target.key, ("", None))
        return state if state is not None and uid == target.uid else target.restored


def build_observation(
    answer: Answer,
    seen: Seen,
    consumers: tuple[ConsumerCounters, ...] | None = None,
    *,
    time_seconds: float,
    age_seconds: float,
) -> Observation:
    """Return what was seen; a failure of Kafka's is an incomplete observation that says so."""
    quality = Quality(age_seconds=age_seconds)
    partitions: tuple[PartitionOffsets, ...] = ()
    if isinstance(answer, TocsinError):
        quality = Quality(is_complete=False, age_seconds=age_seconds, detail=str(answer))
    else:
        partitions = answer
    return Observation(
        time_seconds=time_seconds,
        partitions=partitions,
        replicas=seen.replicas,
        consumers=consumers,
        quality=quality,
    )


def _report_failure(target: Target, answer: Answer, time_seconds: float, error: Exception) -> Report:
    kafka_failure = answer if isinstance(answer, TocsinError) else None
    return Report(target, time_seconds, kafka_failure=kafka_failure, failure=error)
