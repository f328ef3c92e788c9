from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import Counter

from tocsin_core.errors import SettingsError
from tocsin_core.health import HealthServer
from tocsin_core.metrics import registry
from tocsin_core.settings import HealthSettings

LOOPBACK = HealthSettings(host="127.0.0.1", port=0)


class Service:
    """What is wrong with a service, as its two checks tell it."""

    not_ready = ""
    not_alive = ""
    remark = ""


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    server = HealthServer(
        LOOPBACK,
        check_ready=lambda: service.not_ready,
        check_alive=lambda: service.not_alive,
        remark=lambda: service.remark,
    )
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as connected:
        yield connected
    await server.stop()


async def test_a_sound_service_is_alive_and_ready(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_a_service_that_is_not_ready_says_why_and_stays_alive(
    client: httpx.AsyncClient, service: Service
) -> None:
    service.not_ready = "no partitions assigned yet"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "no partitions assigned yet\n")
    assert (await client.get("/healthz")).status_code == 200


async def test_trouble_that_leaves_a_service_ready_is_told_to_whoever_looks(
    client: httpx.AsyncClient, service: Service
) -> None:
    service.remark = "users.http: HTTP 500"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ok, but users.http: HTTP 500\n")
    assert (await client.get("/healthz")).text == "ok\n"


async def test_a_service_that_is_stuck_fails_liveness_with_its_reason(
    client: httpx.AsyncClient, service: Service
) -> None:
    service.not_alive = "the poll thread died"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "the poll thread died\n")


async def test_metrics_are_served_in_prometheus_format(client: httpx.AsyncClient) -> None:
    counter = Counter("tocsin_test_of_health", "Only here for this test.")
    counter.inc(3)
    answer = await client.get("/metrics")
    registry.unregister(counter)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "tocsin_test_of_health_total 3.0" in answer.text
    assert "process_resident_memory_bytes" in answer.text


async def test_an_unknown_path_says_which_there_are(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert answer.status_code == 404
    assert "/healthz" in answer.text


async def test_head_has_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_taken_port_names_the_key_and_the_way_out() -> None:
    first = HealthServer(LOOPBACK, check_ready=str, check_alive=str)
    await first.start()
    second = HealthServer(HealthSettings(host="127.0.0.1", port=first.port), check_ready=str, check_alive=str)
    with pytest.raises(SettingsError, match=r"health\.port .*TOCSIN_HEALTH__PORT"):
        await second.start()
    await second.stop()
    await first.stop()


async def test_stopping_twice_is_fine_and_frees_the_port() -> None:
    server = HealthServer(LOOPBACK, check_ready=str, check_alive=str)
    await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    again = HealthServer(HealthSettings(host="127.0.0.1", port=port), check_ready=str, check_alive=str)
    await again.start()
    await again.stop()
