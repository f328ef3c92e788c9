"""The world that a policy scales: partitions that fill, pods that start slowly, rebalances that pause, late commits.

Second by second and seeded, so that the same question has the same answer. What a policy may see (`look`) is what the
real ones see: offsets as committed, replicas as Kubernetes counts them, counters as a scrape finds them. What only the
world knows (the true age of the oldest record) goes into the score.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from tocsin_cli.simulate.members import Pod, assign
from tocsin_cli.simulate.scenario import Scenario

LEAST = 1e-9
STARTUP_SPREAD = 0.2


@dataclass(frozen=True, slots=True)
class Look:
    """What can be seen from outside at one moment. `missing` partitions are not in Kafka's answer."""

    second: int
    is_answered: bool
    ends: tuple[int, ...]
    committed: tuple[int, ...]
    missing: frozenset[int]
    replicas: int
    ready: int
    pods: tuple[tuple[str, float, float], ...]
    """Name, records processed and seconds busy of each pod that runs."""

    @property
    def partitions(self) -> int:
        """Return how many partitions the topic has."""
        return len(self.ends)

    @property
    def lags(self) -> tuple[int, ...]:
        """Return each partition's lag; one that is missing has none, as an answer without it reads."""
        pairs = zip(self.ends, self.committed, strict=True)
        return tuple(0 if index in self.missing else max(0, end - done) for index, (end, done) in enumerate(pairs))

    @property
    def total_lag(self) -> int:
        """Return the lag of the whole group."""
        return sum(self.lags)


class Plant:
    """One run of a scenario. `step` lets a second pass; `scale_to` is what a policy does."""

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        self.second = 0
        self.replicas = 0
        self.moves = 0
        self.age = 0
        self._scenario = scenario
        self._dice = random.Random(seed)  # noqa: S311 - a simulation wants the same dice each time
        self._partitions = scenario.partitions
        self._shares = self._spread()
        self._arrived = [scenario.backlog / scenario.partitions] * scenario.partitions
        self._finished = [0.0] * scenario.partitions
        self._committed = [0.0] * scenario.partitions
        self._paused_until = [0] * scenario.partitions
        self._waiting: list[deque[tuple[int, float]]] = [deque() for _ in range(scenario.partitions)]
        if scenario.backlog:
            for index, queue in enumerate(self._waiting):
                queue.append((0, self._arrived[index]))
        self._pods: list[Pod] = []
        self._started = 0
        self._replacing: deque[tuple[int, Pod]] = deque()
        self.scale_to(scenario.first_replicas)
        for pod in self._pods:
            pod.ready_at = 0
        self._join_ready()
        self.moves = 0

    @property
    def ready(self) -> int:
        """Return how many pods are ready."""
        return sum(pod.is_member for pod in self._pods)

    def scale_to(self, replicas: int) -> None:
        """Start or stop pods; the youngest leave, finish what they hold, and their partitions move on."""
        while len(self._pods) < replicas:
            self._start_pod(self._draw_startup_seconds())
        if replicas < len(self._pods):
            del self._pods[replicas:]
            self._rebalance(self._scenario.pods.pause_seconds)
        self.replicas = replicas

    def step(self) -> None:
        """Let one second pass."""
        scenario, now = self._scenario, self.second
        if scenario.grown_partitions and now == scenario.grown_at:
            self._grow(scenario.grown_partitions)
        self._happen(now)
        self._join_ready()
        self._arrive(now)
        self._work(now)
        self._note_ages(now)
        every = scenario.pods.commit_seconds
        for partition in range(now % every, self._partitions, every):  # not all at once: pods commit when they do
            self._committed[partition] = self._finished[partition]
        self.second += 1

    def look(self) -> Look:
        """Return what can be seen now."""
        scenario, now = self._scenario, self.second
        is_partial = scenario.partial is not None and now in scenario.partial
        return Look(
            second=now,
            is_answered=scenario.outage is None or now not in scenario.outage,
            ends=tuple(int(each) for each in self._arrived),
            committed=tuple(int(each) for each in self._committed),
            missing=frozenset(range(0, self._partitions, 2)) if is_partial else frozenset(),
            replicas=self.replicas,
            ready=self.ready,
            pods=tuple((pod.name, pod.processed, pod.busy_seconds) for pod in self._pods if pod.is_member),
        )

    def _spread(self) -> list[float]:
        weights = [max(0.1, 1 + self._dice.gauss(0, self._scenario.skew)) for _ in range(self._partitions)]
        if not self._scenario.skew:
            weights = [1.0] * self._partitions
        return [each / sum(weights) for each in weights]

    def _draw_startup_seconds(self) -> float:
        return self._scenario.pods.startup_seconds * (1 + STARTUP_SPREAD * (2 * self._dice.random() - 1))

    def _start_pod(self, after_seconds: float) -> Pod:
        pod = Pod(f"pod-{self._started}", self.second + after_seconds)
        self._started += 1
        self._pods.append(pod)
        return pod

    def _join_ready(self) -> None:
        joining = [pod for pod in self._pods if not pod.is_member and pod.ready_at <= self.second]
        if joining:
            for pod in joining:
                pod.is_member = True
            self._rebalance(self._scenario.pods.pause_seconds)

    def _rebalance(self, pause_seconds: int) -> None:
        moved = assign([pod for pod in self._pods if pod.is_member], self._partitions)
        self.moves += len(moved)
        paused = range(self._partitions) if moved and self._scenario.pods.is_eager else moved
        for partition in paused:
            self._paused_until[partition] = max(self._paused_until[partition], self.second + pause_seconds)

    def _happen(self, now: int) -> None:
        """Kill and replace pods where the scenario says so."""
        scenario = self._scenario
        if scenario.kill_every_seconds and now % scenario.kill_every_seconds == 0 and now and self._pods:
            pod = self._dice.choice(self._pods)
            self._pods.remove(pod)
            self._start_pod(self._draw_startup_seconds())
            self._rebalance(scenario.pods.crash_seconds)
        if now in scenario.deploys:
            gap = int(scenario.pods.startup_seconds)
            self._replacing.extend((now + gap * (number + 1), pod) for number, pod in enumerate(list(self._pods)))
        while self._replacing and self._replacing[0][0] <= now:
            self._replace(self._replacing.popleft()[1])

    def _replace(self, pod: Pod) -> None:
        """Let a new pod, ready already, take the place of an old one: a rolling update that surges."""
        if pod in self._pods:
            self._pods.remove(pod)
            self._start_pod(0)
            self._join_ready()

    def _grow(self, partitions: int) -> None:
        added = partitions - self._partitions
        self._partitions = partitions
        for numbers in (self._arrived, self._finished, self._committed):
            numbers.extend([0.0] * added)
        self._paused_until.extend([0] * added)
        self._waiting.extend(deque() for _ in range(added))
        self._shares = self._spread()
        self._rebalance(self._scenario.pods.pause_seconds)

    def _arrive(self, now: int) -> None:
        scenario, rate = self._scenario, self._scenario.arrivals[now]
        if scenario.noise and rate:
            rate = max(0.0, rate + scenario.noise * self._dice.gauss(0, rate**0.5))
        arrived = self._arrived
        if scenario.hot is not None and now in scenario.hot:
            arrived[0] += rate * scenario.hot_share
            rate *= 1 - scenario.hot_share
        for index, share in enumerate(self._shares):
            arrived[index] += rate * share

    def _work(self, now: int) -> None:
        scenario = self._scenario
        per_second = scenario.pods.per_second
        if scenario.slow is not None and now in scenario.slow:
            per_second *= scenario.slow_factor
        workable = [self._find_workable(pod, now) for pod in self._pods]
        wanted = [min(per_second, sum(left for _, left in work)) for work in workable]
        factor = 1.0
        if scenario.ceiling is not None and now in scenario.ceiling:
            factor = min(1.0, scenario.ceiling_per_second / max(LEAST, sum(wanted)))
        for pod, work, want in zip(self._pods, workable, wanted, strict=True):
            if want <= 0:
                continue
            self._finish(work, want * factor)
            pod.processed += want * factor
            pod.busy_seconds += 1.0 if factor < 1 else want / per_second

    def _find_workable(self, pod: Pod, now: int) -> list[tuple[int, float]]:
        """Return the pod's partitions that may be worked on, and what waits in each."""
        if not pod.is_member:
            return []
        frozen = 0 if self._scenario.frozen is not None and now in self._scenario.frozen else -1
        arrived, finished, paused = self._arrived, self._finished, self._paused_until
        return [
            (each, arrived[each] - finished[each])
            for each in pod.owned
            if each != frozen and paused[each] <= now and arrived[each] > finished[each]
        ]

    def _finish(self, work: list[tuple[int, float]], amount: float) -> None:
        """Share a pod's second among its partitions: each gets the same, and what one leaves goes to the others."""
        if sum(left for _, left in work) <= amount + LEAST:
            for partition, _ in work:
                self._finished[partition] = self._arrived[partition]
            return
        for number, (partition, left) in enumerate(sorted(work, key=lambda each: each[1])):
            done = min(left, amount / (len(work) - number))
            self._finished[partition] += done
            amount -= done

    def _note_ages(self, now: int) -> None:
        """Find the oldest record that waits; one in a frozen partition waits for nothing that pods could bring."""
        oldest = now
        frozen = 0 if self._scenario.frozen is not None and now in self._scenario.frozen else -1
        for index, queue in enumerate(self._waiting):
            arrived, finished = self._arrived[index], self._finished[index] + LEAST
            if arrived <= finished:
                queue.clear()
                continue
            queue.append((now, arrived))
            while queue[0][1] <= finished:
                queue.popleft()
            if index != frozen and queue[0][0] < oldest:
                oldest = queue[0][0]
        self.age = now - oldest
