"""What this machine offers to the cluster's pods: its address, a Kafka under the name `kafka`, a slow webhook receiver.

The broker and the receiver run beside the tests and not in pods, so that they can be counted and looked into, and so
that no image but Tocsin's own is needed. A Service without selector gives the broker its name in a namespace.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from e2e.cluster import run_command
from tocsin_cli.demo.receiver import HOOK_PATH, Receiver

EVERYWHERE = "0.0.0.0"
START_SECONDS = 10.0


def find_host_address() -> str:
    """Return an address of this machine for pods: $TOCSIN_TEST_HOST_IP, else the one on the way to the cluster."""
    if given := os.environ.get("TOCSIN_TEST_HOST_IP"):
        return given
    server = run_command("kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").out
    url = urlsplit(server)
    nodes = run_command(
        "kubectl", "get", "nodes", "-o", 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    ).out
    # A cluster on this machine has its API server on the loopback, where no pod would find us; its nodes do.
    target = nodes if url.hostname in {"127.0.0.1", "localhost", "::1"} else url.hostname
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))  # chooses a route and sends nothing
        return str(probe.getsockname()[0])


def build_host_service(name: str, address: str, port: int, *, service_port: int) -> list[dict[str, Any]]:
    """Return a Service of that name that leads to a port of this machine."""
    ports = [{"name": "host", "port": port, "protocol": "TCP"}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"name": "host", "port": service_port, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-host", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [address]}],
        },
    ]


@contextmanager
def serve_webhooks(address: str, secret: str, *, delay_seconds: float) -> Iterator[tuple[str, Receiver]]:
    """Serve a receiver of signed webhooks until the block ends; give its URL for pods, and the receiver."""
    receiver = Receiver(secret, delay_seconds=delay_seconds)
    listener = socket.create_server((EVERYWHERE, 0))
    config = uvicorn.Config(receiver, lifespan="off", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        assert time.monotonic() < deadline, "the webhook receiver did not start"
        time.sleep(0.01)
    try:
        yield f"http://{address}:{listener.getsockname()[1]}{HOOK_PATH}", receiver
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()
