"""`tocsin explain`: why a pipeline has as many consumers as it has.

    tocsin explain orders -n shop
    kubectl get npl orders -n shop -o json | tocsin explain -f -

Reads the pipeline's status, where the operator records each decision with the counts it weighed, so it needs no more
rights than `kubectl get npl`. Exit 0, 2 if there is no such pipeline or nothing was decided yet.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tocsin_core.errors import TocsinError
from tocsin_operator.model import KIND

STDIN = "-"
HOLDS = {
    "Provider": "its provider is down or throttles",
    "StandingStill": "nothing is finished there while others move",
}
FIGURES = (
    ("arrivalPerSecond", "arrive per second"),
    ("capacityPerSecond", "one pod does per second"),
    ("drainSeconds", "seconds until the backlog is gone"),
    ("startupSeconds", "seconds until new pods are ready"),
)


class ExplainError(TocsinError):
    """There is nothing to explain; the text says why, and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `tocsin explain` takes."""
    parser.add_argument("name", nargs="?", help="the pipeline")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the resource from a file, or - for standard input")


def run(arguments: argparse.Namespace) -> int:
    """Print why. Raise ExplainError, or what the API server answered."""
    body = _read_file(arguments.file) if arguments.file else asyncio.run(_fetch(arguments))
    print("\n".join(explain(body)))
    return 0


def explain(body: Mapping[str, Any]) -> Iterator[str]:
    """Return the explanation of a resource, line by line. Raise ExplainError where nothing was decided yet."""
    metadata, status = body.get("metadata") or {}, body.get("status") or {}
    scaling, kafka = status.get("scaling") or {}, status.get("kafka") or {}
    if not scaling:
        raise ExplainError(
            f"{metadata.get('name', 'the pipeline')} has no status.scaling yet: is the operator running? "
            "See kubectl describe npl"
        )
    consumer = status.get("consumer") or {}
    yield f"{metadata.get('namespace', 'default')}/{metadata.get('name', '')}: {_count(consumer)}"
    yield f"  now: {scaling.get('reason')}, limited by {scaling.get('limitedBy')}: {scaling.get('message')}"
    if "advisedReplicas" in scaling:
        yield f"  advice: {scaling['advisedReplicas']} pods"
    if kafka:
        lag = f"{kafka.get('totalLag')} records, the oldest {kafka.get('lagSeconds')} s"
        yield f"  lag: {lag}, at {kafka.get('observedTime')}"
    yield from _show_channels(kafka, scaling)
    yield from _show_figures(scaling)
    yield from _show_candidates(scaling, "  ")
    for entry in scaling.get("history", ()):
        change = f"{entry.get('replicasBefore')} -> {entry.get('replicasAfter')}"
        yield f"{entry.get('time')}  {change}  {entry.get('reason')}: {entry.get('message')}"
        yield from _show_candidates(entry, "    ")


def _count(consumer: Mapping[str, Any]) -> str:
    return f"{consumer.get('readyReplicas', '?')} of {consumer.get('desiredReplicas', '?')} consumers ready"


def _show_channels(kafka: Mapping[str, Any], scaling: Mapping[str, Any]) -> Iterator[str]:
    held = {each["name"]: HOLDS.get(each["reason"], each["reason"]) for each in scaling.get("heldChannels", ())}
    for each in kafka.get("channels", ()):
        why = f": {held[each['name']]}, so no pod is bought for it" if each["name"] in held else ""
        yield f"    channel {each['name']}: {each['lag']} records, the oldest {each['lagSeconds']:g} s{why}"


def _show_figures(scaling: Mapping[str, Any]) -> Iterator[str]:
    for name, words in FIGURES:
        if name in scaling:
            source = f" ({scaling['capacitySource'].lower()})" if name == "capacityPerSecond" else ""
            yield f"  {scaling[name]:g} {words}{source}"
    for name, words in (("stuckPartitions", "stand still"), ("hotPartitions", "need more than a pod can do")):
        if scaling.get(name):
            yield f"  partitions {', '.join(map(str, scaling[name]))} {words}"
    downstream = scaling.get("downstream")
    if downstream:
        yield f"  the downstream takes {downstream['perSecond']:g} per second, tried again at {downstream['untilTime']}"


def _show_candidates(decision: Mapping[str, Any], indent: str) -> Iterator[str]:
    for each in decision.get("candidates", ()):
        busy = f", busiest pod at {each['utilisation']:.0%}" if "utilisation" in each else ""
        verdict = f"refused: {each['refusal']}" if "refusal" in each else f"would do{busy}"
        yield f"{indent}{each['replicas']:>5} pods {verdict}"


def _read_file(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8")
        body = yaml.safe_load(text)  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExplainError(f"-f {name}: cannot be read: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise ExplainError(f"-f {name}: holds no {KIND}; try: kubectl get npl NAME -o json | tocsin explain -f -")
    return body


async def _fetch(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.name:
        raise ExplainError("name a pipeline, or give its resource with -f: tocsin explain NAME -n NAMESPACE")
    try:
        from tocsin_operator.apply import KubernetesAPI  # noqa: PLC0415 - a file needs no client of Kubernetes
    except ModuleNotFoundError as error:
        raise ExplainError(f"{error.name} is not installed; pip install 'tocsin[operator]', or use -f") from error
    api = await KubernetesAPI.connect()
    try:
        return await api.read(KIND, arguments.namespace, arguments.name)
    finally:
        await api.close()
