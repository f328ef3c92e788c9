"""Network policies: what may reach a pod, and what a pod may reach.

In: everybody may post to ingestion's API and open streams there (who is let in is the API's question, and an Ingress
controller may run on the host network, which no selector describes); health and metrics answer the cluster's pods only
(operator, Prometheus); the kubelet on the pod's own node is never filtered. Nothing else gets in, so nothing calls a
consumer.

Out: DNS, and TCP to anywhere. Kafka names its brokers' addresses and ports itself, after the first connection;
webhooks, SMTP servers, stores and user directories live where the user says. Listing their ports would cut off a broker
that advertises another port than the bootstrap's; listing addresses as blocks would cut off pods and nodes on networks
where blocks mean the outside world alone. A cluster that wants less adds its own policies to the pods' labels.
"""

from __future__ import annotations

from typing import Any

from tocsin_operator.children.config import HEALTH_PORT, INGESTION_PORT
from tocsin_operator.children.naming import Role, build_metadata, build_selector, name_workload
from tocsin_operator.model import Pipeline

# 5353 beside 53: policies see the port behind the DNS Service, and some distributions' resolvers listen there.
DNS_PORTS = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]
ANY_TCP = {"protocol": "TCP", "port": 1, "endPort": 65_535}


def build_network_policy(pipeline: Pipeline, role: Role) -> dict[str, Any]:
    """Return the NetworkPolicy of a role's pods."""
    metrics = {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": HEALTH_PORT}]}
    posts = {"ports": [{"protocol": "TCP", "port": INGESTION_PORT}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(pipeline, name_workload(pipeline, role), role),
        "spec": {
            "podSelector": {"matchLabels": build_selector(pipeline, role)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [posts, metrics] if role == "ingestion" else [metrics],
            "egress": [{"ports": DNS_PORTS}, {"ports": [ANY_TCP]}],
        },
    }
