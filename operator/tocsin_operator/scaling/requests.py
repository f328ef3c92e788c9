"""How many ingestion pods a pipeline needs: requests per second, the mean of a minute, and a shorter one in a panic.

Ingestion has no backlog to look at: a request that is not answered is gone. So it follows what arrives, as Knative's
autoscaler does: the mean of 60 s, and for a minute that of 6 s once it is twice what the pods are for. Outwards at
once, inwards to the peak of five minutes. Where pods wait for Kafka, more of them would wait as well, and none is
added. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import msgspec

from tocsin_operator.scaling.model import Peak, Replicas, Value

STABLE_SECONDS = 60.0
PANIC_SECONDS = 6.0
PANIC_FACTOR = 2.0
DOWN_WINDOW_SECONDS = 300.0
PEAK_SLICES = 30
# A pod is forgotten when it was not read for so long; one that is unready, or slow to answer, comes back before.
FORGOTTEN_SECONDS = 600.0
# A pod whose oldest record waits this long for Kafka's answer is held up by Kafka and not by its requests.
KAFKA_WAIT_SECONDS = 1.0


class RequestReason(StrEnum):
    """Why the number of ingestion pods is what it is."""

    OUTSIDE_BOUNDS = "OutsideBounds"
    NOT_READABLE = "PodsNotReadable"
    KAFKA_BOUND = "KafkaBound"
    BURST = "BurstOfRequests"
    EXCEEDED = "RequestsExceedTarget"
    FITS_IN_FEWER = "FitsInFewer"
    WAITING = "WaitingToScaleIn"
    WITHIN_TARGET = "WithinTarget"


class PodRequests(Value, frozen=True):
    """What one pod says: notifications it answered since it started, and how long its oldest record waits for Kafka."""

    pod: str
    requests_total: float
    kafka_wait_seconds: float = 0.0


class RequestLook(Value, frozen=True):
    """One look at ingestion; `pods` are those that could be read."""

    time_seconds: float
    replicas: Replicas
    pods: tuple[PodRequests, ...]


class RequestConfig(Value, frozen=True):
    """The range, and what one pod is there for."""

    min_replicas: int = 1
    max_replicas: int = 10
    target_per_second: float = 500.0


class KnownPod(Value, frozen=True):
    """What a pod had answered when it was last read, and when that was."""

    pod: str
    requests_total: float
    read_seconds: float


class Increment(Value, frozen=True):
    """How many requests came between two looks, those of pods that could not be read included by estimate."""

    time_seconds: float
    span_seconds: float
    requests: float


class RequestState(Value, frozen=True):
    """What one decision leaves to the next. Nothing of it has to survive a restart: the window fills again."""

    pods: tuple[KnownPod, ...] = ()
    looked_seconds: float | None = None
    since_seconds: float | None = None
    increments: tuple[Increment, ...] = ()
    peaks: tuple[Peak, ...] = ()
    panic_until_seconds: float = 0.0


class RequestDecision(Value, frozen=True):
    """How many pods, and why. The rate is None where it is not known."""

    replicas: int
    reason: RequestReason
    message: str
    requests_per_second: float | None = None


class _Rates(NamedTuple):
    stable: float
    panic: float
    peak: float


def decide_requests(
    look: RequestLook, state: RequestState, config: RequestConfig
) -> tuple[RequestDecision, RequestState]:
    """Return how many ingestion pods there should be, why, and what to remember."""
    state = _note(look, state)
    rates = _measure(state, look.time_seconds)
    if rates is not None and rates.panic >= PANIC_FACTOR * config.target_per_second * look.replicas.spec:
        state = msgspec.structs.replace(state, panic_until_seconds=look.time_seconds + STABLE_SECONDS)
    return _decide(look, state, config, rates), state


def _decide(look: RequestLook, state: RequestState, config: RequestConfig, rates: _Rates | None) -> RequestDecision:
    current = look.replicas.spec
    allowed = max(config.min_replicas, min(config.max_replicas, current))
    stable = rates.stable if rates else None
    if allowed != current:
        message = f"{current} pods are outside {config.min_replicas} to {config.max_replicas}"
        return RequestDecision(
            replicas=allowed, reason=RequestReason.OUTSIDE_BOUNDS, message=message, requests_per_second=stable
        )
    if rates is None or not look.pods:
        message = f"{len(look.pods)} of {look.replicas.ready} ready pods could be read: the number is held"
        return RequestDecision(replicas=current, reason=RequestReason.NOT_READABLE, message=message)
    return _grow(look, state, config, rates) or _shrink(look, state, config, rates)


def _grow(look: RequestLook, state: RequestState, config: RequestConfig, rates: _Rates) -> RequestDecision | None:
    current = look.replicas.spec
    is_burst = look.time_seconds < state.panic_until_seconds
    rate = max(rates.stable, rates.panic) if is_burst else rates.stable
    needed = min(config.max_replicas, math.ceil(rate / config.target_per_second))
    if needed <= current:
        return None
    wait_seconds = sorted(pod.kafka_wait_seconds for pod in look.pods)[len(look.pods) // 2]
    what = f"{rate:.0f} requests a second, {config.target_per_second:.0f} are a pod's"
    if wait_seconds >= KAFKA_WAIT_SECONDS:
        message = f"{what}; but pods wait {wait_seconds:.1f} s for Kafka, and more of them would wait as well"
        return RequestDecision(
            replicas=current, reason=RequestReason.KAFKA_BOUND, message=message, requests_per_second=rates.stable
        )
    reason = RequestReason.BURST if is_burst else RequestReason.EXCEEDED
    return RequestDecision(replicas=needed, reason=reason, message=what, requests_per_second=rates.stable)


def _shrink(look: RequestLook, state: RequestState, config: RequestConfig, rates: _Rates) -> RequestDecision:
    current = look.replicas.spec
    needed = max(config.min_replicas, math.ceil(max(rates.peak, rates.panic) / config.target_per_second))
    what = f"{rates.stable:.0f} requests a second, {rates.peak:.0f} at the window's peak"
    if needed >= current:
        return RequestDecision(
            replicas=current,
            reason=RequestReason.WITHIN_TARGET,
            message=f"{what}: {current} pods for this load",
            requests_per_second=rates.stable,
        )
    obstacle = _find_obstacle(look, state)
    if obstacle:
        message, replicas, reason = f"{what}: {needed} would do; {obstacle}", current, RequestReason.WAITING
    else:
        message, replicas, reason = what, needed, RequestReason.FITS_IN_FEWER
    return RequestDecision(replicas=replicas, reason=reason, message=message, requests_per_second=rates.stable)


def _find_obstacle(look: RequestLook, state: RequestState) -> str:
    if look.replicas.ready != look.replicas.spec:
        return "pods are starting or leaving"
    if len(look.pods) < look.replicas.ready:
        return f"only {len(look.pods)} of {look.replicas.ready} pods could be read"
    if state.since_seconds is None or look.time_seconds - state.since_seconds < DOWN_WINDOW_SECONDS:
        return f"the last {DOWN_WINDOW_SECONDS:.0f} s are not all seen yet"
    return ""


def _note(look: RequestLook, state: RequestState) -> RequestState:
    """Return the state with this look; after a silence the window starts again."""
    if not look.pods:
        return state
    last_seconds, pods = state.looked_seconds, _note_pods(look, state)
    is_new = last_seconds is None or not 0 < look.time_seconds - last_seconds <= STABLE_SECONDS
    if last_seconds is None or is_new:
        return RequestState(pods=pods, looked_seconds=look.time_seconds, since_seconds=look.time_seconds)
    span_seconds = look.time_seconds - last_seconds
    requests = _count(look, state, span_seconds)
    newest = Increment(time_seconds=look.time_seconds, span_seconds=span_seconds, requests=requests)
    kept = [each for each in state.increments if look.time_seconds - each.time_seconds < STABLE_SECONDS]
    noted = msgspec.structs.replace(state, pods=pods, looked_seconds=look.time_seconds, increments=(*kept, newest))
    return msgspec.structs.replace(noted, peaks=_note_peak(noted, look.time_seconds))


def _note_pods(look: RequestLook, state: RequestState) -> tuple[KnownPod, ...]:
    """Return what is known of the pods now, of those too that could not be read this time."""
    read = {each.pod for each in look.pods}
    absent = [
        each
        for each in state.pods
        if each.pod not in read and 0 <= look.time_seconds - each.read_seconds < FORGOTTEN_SECONDS
    ]
    seen = [
        KnownPod(pod=each.pod, requests_total=each.requests_total, read_seconds=look.time_seconds) for each in look.pods
    ]
    return (*absent, *seen)


def _count(look: RequestLook, state: RequestState, span_seconds: float) -> float:
    """Return what came since the last look, `span_seconds` ago.

    A pod that is new counts from its start, but for no more than the busiest of the others: it may be an old one that
    nobody could read before, with all it answered in its life.
    """
    before = {each.pod: each for each in state.pods}
    old = [each for each in look.pods if each.pod in before]
    known = [_count_pod(each, before[each.pod], look.time_seconds, span_seconds) for each in old]
    most = max(known, default=0.0)
    new = [min(each.requests_total, most) for each in look.pods if each.pod not in before]
    return (sum(known) + sum(new)) * max(1.0, look.replicas.ready / len(look.pods))


def _count_pod(pod: PodRequests, before: KnownPod, now_seconds: float, span_seconds: float) -> float:
    """Return what a pod answered in the span; one that started again counts from its start.

    What came while it could not be read is spread over that time, because the looks meanwhile have estimated theirs.
    """
    is_same = pod.requests_total >= before.requests_total
    answered = pod.requests_total - before.requests_total if is_same else pod.requests_total
    return answered * span_seconds / (now_seconds - before.read_seconds)


def _note_peak(state: RequestState, now_seconds: float) -> tuple[Peak, ...]:
    rate = _mean(state.increments, now_seconds, STABLE_SECONDS)
    slice_seconds = DOWN_WINDOW_SECONDS / PEAK_SLICES
    kept = [peak for peak in state.peaks if now_seconds - peak.start_seconds <= DOWN_WINDOW_SECONDS]
    if kept and now_seconds - kept[-1].start_seconds < slice_seconds:
        last = kept.pop()
        return (*kept, Peak(start_seconds=last.start_seconds, per_second=max(last.per_second, rate)))
    return (*kept, Peak(start_seconds=now_seconds, per_second=rate))


def _measure(state: RequestState, now_seconds: float) -> _Rates | None:
    if not state.increments:
        return None
    return _Rates(
        stable=_mean(state.increments, now_seconds, STABLE_SECONDS),
        panic=_mean(state.increments, now_seconds, PANIC_SECONDS),
        peak=max((peak.per_second for peak in state.peaks), default=0.0),
    )


def _mean(increments: tuple[Increment, ...], now_seconds: float, span_seconds: float) -> float:
    recent = [each for each in increments if now_seconds - each.time_seconds < span_seconds] or [increments[-1]]
    return sum(each.requests for each in recent) / sum(each.span_seconds for each in recent)
