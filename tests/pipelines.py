"""The smallest pipeline, and what a test changes in it: dotted paths (numbers index lists) mapped to values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tocsin_operator.model import Pipeline, parse_pipeline

Changes = Mapping[str, Any]
STORED: Changes = {"metadata.namespace": "shop", "metadata.uid": "u", "metadata.generation": 1}


def build_pipeline(changes: Changes, *, name: str = "a-pipeline") -> dict[str, Any]:
    """Return the smallest pipeline with `changes`, as a user writes it."""
    body: dict[str, Any] = {
        "apiVersion": "tocsin.dev/v1alpha1",
        "kind": "NotificationPipeline",
        "metadata": {"name": name},
        "spec": {
            "kafka": {"bootstrapServers": ["kafka:9092"], "topic": {"name": "orders"}},
            "users": {"configMapRef": {"name": "orders-users"}},
            "consumer": {"channels": [{"name": "log", "type": "Log"}]},
        },
    }
    for path, value in changes.items():
        _set(body, path.split("."), copy.deepcopy(value))
    return body


def build_stored(changes: Changes) -> dict[str, Any]:
    """Return the smallest pipeline with `changes`, as an API server hands it out: `orders` in the namespace `shop`."""
    return build_pipeline({**STORED, **changes}, name="orders")


def parse_stored(changes: Changes) -> Pipeline:
    """Return the smallest pipeline with `changes`, as the operator sees it: `orders` in the namespace `shop`."""
    return parse_pipeline(build_stored(changes))


def prefix(path: str, fields: Changes) -> Changes:
    """Return changes of the fields below a path."""
    return {f"{path}.{name}": value for name, value in fields.items()}


def _set(body: Any, steps: list[str], value: Any) -> None:
    for step in steps[:-1]:
        body = body[int(step)] if isinstance(body, list) else body.setdefault(step, {})
    body[steps[-1]] = value
