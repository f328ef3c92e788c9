"""What a pod's metrics page says to the scaling rules. Pure.

A page has hundreds of lines and a few counters matter here: they are looked for by name before anything is parsed, as
this runs for every pod of every pipeline every few seconds. The names are the services' contract.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tocsin_operator.scaling.model import ConsumerCounters
from tocsin_operator.scaling.requests import PodRequests

PROCESSED = "tocsin_consumer_processed_total"
BUSY = "tocsin_consumer_busy_slot_seconds_total"
THROTTLED = "tocsin_consumer_throttled_seconds_total"
CONCURRENCY = "tocsin_consumer_concurrency"
IN_FLIGHT = "tocsin_consumer_in_flight"
HELD = "tocsin_channel_held_seconds_total"
CPU = "process_cpu_seconds_total"
ANSWERED = frozenset(
    {"tocsin_ingestion_accepted_total", "tocsin_ingestion_replayed_total", "tocsin_ingestion_refused_total"}
)
KAFKA_WAIT = "tocsin_producer_oldest_in_flight_seconds"
WANTED = frozenset({PROCESSED, BUSY, THROTTLED, CONCURRENCY, IN_FLIGHT, CPU})


def parse_consumer(pod: str, page: str) -> ConsumerCounters | None:
    """Return a consumer's counters, None where the page lacks what capacity is measured with.

    A counter with labels (one throttled per channel) counts as the sum over them.
    """
    found = sum_samples(page, WANTED)
    if not {PROCESSED, BUSY, CONCURRENCY} <= found.keys():
        return None
    return ConsumerCounters(
        pod=pod,
        processed_total=found[PROCESSED],
        busy_slot_seconds_total=found[BUSY],
        concurrency=found[CONCURRENCY],
        throttled_seconds_total=found.get(THROTTLED, 0.0),
        cpu_seconds_total=found.get(CPU),
        in_flight=found.get(IN_FLIGHT, 0.0),
        held_seconds=split_samples(page, HELD, "channel"),
    )


def parse_ingestion(pod: str, page: str) -> PodRequests | None:
    """Return what an ingestion pod answered, accepted or not, None where the page does not say."""
    found = sum_samples(page, ANSWERED | {KAFKA_WAIT})
    if not found.keys() & ANSWERED:
        return None
    answered = sum(value for name, value in found.items() if name in ANSWERED)
    return PodRequests(pod=pod, requests_total=answered, kafka_wait_seconds=found.get(KAFKA_WAIT, 0.0))


def sum_samples(page: str, names: frozenset[str]) -> Mapping[str, float]:
    """Return the value of each named metric of a page in Prometheus' text format, summed over its labels."""
    found: dict[str, float] = {}
    for name in names:
        for sample in _find_samples(page, name):
            value = _parse_value(sample.rpartition("}")[2])
            if value is not None:
                found[name] = found.get(name, 0.0) + value
    return found


def split_samples(page: str, name: str, label: str) -> dict[str, float]:
    """Return the value of one metric for each value of its one label."""
    found: dict[str, float] = {}
    for sample in _find_samples(page, name):
        labelled, _, text = sample.removeprefix(f'{{{label}="').partition('"}')
        value = _parse_value(text)
        if value is not None:
            found[labelled] = value
    return found


def _find_samples(page: str, name: str) -> Iterator[str]:
    """Return what follows the name in each sample of a metric. Looking for the name is cheaper than for lines."""
    at = page.find(name)
    while at != -1:
        end = page.find("\n", at)
        line_end = len(page) if end == -1 else end
        sample = page[at + len(name) : line_end]
        if sample[:1] in {" ", "{"} and page[at - 1 : at] in {"", "\n"}:
            yield sample
        at = page.find(name, line_end)


def _parse_value(text: str) -> float | None:
    """Return a sample's value, without the time that may follow it."""
    try:
        value = float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None
