"""The demo's resource: small enough that one consumer cannot keep up with the peak, and quick to decide.

One delivery takes 100 ms at the receiver, so ten at a time make a hundred a second per consumer: the peak of 300 a
second needs more of them, and twelve partitions leave room.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any

import yaml

NAME = "demo"
CHANNEL = "hook"
USERS = 1_000
DELAY_SECONDS = 0.1


def make_webhook_secret() -> str:
    """Return a new Standard Webhooks signing secret."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def build_demo_file(webhook_url: str, webhook_secret: str) -> str:
    """Return the demo's YAML: the pipeline, its thousand users and the signing secret."""
    users = {str(number): {"name": f"User {number}"} for number in range(1, USERS + 1)}
    documents = [
        _build_pipeline(webhook_url),
        _build("ConfigMap", "demo-users", data={"users.yaml": yaml.safe_dump(users, sort_keys=False)}),
        _build("Secret", "demo-hook", stringData={"secret": webhook_secret}),
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)


def _build_pipeline(webhook_url: str) -> dict[str, Any]:
    channel = {"name": CHANNEL, "type": "Webhook", "webhook": {"url": webhook_url, "secretRef": {"name": "demo-hook"}}}
    scaling = {
        "maxReplicas": 12,
        "maxLagSeconds": 5,
        "intervalSeconds": 1,
        "cooldownSeconds": 5,
        "downWindowSeconds": 10,
    }
    spec = {
        "kafka": {"bootstrapServers": ["kafka:9092"], "topic": {"name": NAME, "partitions": 12}},
        "users": {"configMapRef": {"name": "demo-users"}},
        "consumer": {"concurrency": 10, "scaling": scaling, "channels": [channel]},
    }
    return _build("NotificationPipeline", NAME, api_version="tocsin.dev/v1alpha1", spec=spec)


def _build(kind: str, name: str, *, api_version: str = "v1", **content: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **content}
