"""The ingestion process, as an image starts it, against a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition

from tocsin_cli.embedded.kafka import BrokerSecurity, EmbeddedKafka
from tocsin_core.admin import KafkaAdmin
from tocsin_core.codec import decode
from tocsin_core.message import Notification
from tocsin_core.settings import KafkaConnection

pytestmark = pytest.mark.kafka

GOOD: dict[str, Any] = {"fromID": 1, "toID": 2, "message": "hi"}
ONE, BATCH = "/v1/notifications", "/v1/notifications:batch"
USERS = "".join(f'"{number}": {{name: User {number}}}\n' for number in range(1, 101))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Service(NamedTuple):
    client: httpx.AsyncClient
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def read_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(folder: Path, config: dict[str, Any], **environment: str) -> tuple[subprocess.Popen[bytes], Path]:
    (folder / "users.yaml").write_text(USERS)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    log = folder / "ingestion.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tocsin_cli", "ingest", "--config", str(folder / "config.yaml")],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    return process, log


def build_config(folder: Path, brokers: str, topic: str, **kafka: Any) -> dict[str, Any]:
    return {
        "kafka": {"brokers": brokers, "topic": topic, "delivery_timeout_seconds": 3, **kafka},
        "users": {"file": str(folder / "users.yaml")},
        "ingestion": {"host": "127.0.0.1", "port": free_port(), "drain_seconds": 4},
        "health": {"host": "127.0.0.1", "port": free_port()},
        "consumer": {"channels": [{"name": "log", "type": "Log"}]},
    }


@asynccontextmanager
async def run_service(folder: Path, config: dict[str, Any], **environment: str) -> AsyncIterator[Service]:
    process, log = start(folder, config, **environment)
    url = f"http://127.0.0.1:{config['ingestion']['port']}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=15) as client:
            await wait_until_answered(client, "/healthz", process, log)
            yield Service(client, process, url, log)
    finally:
        process.kill()
        process.wait()


async def wait_until_answered(
    client: httpx.AsyncClient, path: str, process: subprocess.Popen[bytes], log: Path, *, seconds: float = 30
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if (await client.get(path)).status_code == 200:
                return
        await asyncio.sleep(0.05)
    pytest.fail(f"{path} never answered 200:\n{log.read_text()}")  # noqa: ASYNC240 - the test is over


@asynccontextmanager
async def run_ready(folder: Path, brokers: str, topic: str, **kafka: Any) -> AsyncIterator[Service]:
    async with run_service(folder, build_config(folder, brokers, topic, **kafka)) as service:
        await wait_until_answered(service.client, "/readyz", service.process, service.log)
        yield service


async def read_topic(brokers: str, topic: str) -> list[Notification]:
    """Return every notification in the topic, and fail on any record that does not decode."""
    return await asyncio.to_thread(_read, brokers, topic)


def _read(brokers: str, topic: str) -> list[Notification]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test-reader", "enable.auto.commit": False})
    found: list[Notification] = []
    try:
        partitions = [TopicPartition(topic, each, 0) for each in consumer.list_topics(topic).topics[topic].partitions]
        count = sum(consumer.get_watermark_offsets(each)[1] for each in partitions)
        consumer.assign(partitions)
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=1.0):
                assert message.error() is None
                notification = decode(message.value())
                assert message.key() == notification.to_id.encode()
                found.append(notification)
    finally:
        consumer.close()
    assert len(found) == count
    return found


@pytest.fixture(scope="module")
def pausable() -> Iterator[EmbeddedKafka]:
    """A broker of this module alone: the session's may not be stopped."""
    with EmbeddedKafka() as server:
        yield server


@pytest.fixture
async def pausable_topic(pausable: EmbeddedKafka) -> str:
    admin = KafkaAdmin(KafkaConnection(brokers=[pausable.bootstrap_servers]), client_id="test")
    name = f"test-{secrets.token_hex(6)}"
    await admin.create_topic(name, partitions=4)
    await admin.close()
    return name


def wait_until_stopped(pid: int) -> None:
    """Wait for every thread: on a busy machine the one that takes the signal may not run for a while."""
    deadline = time.monotonic() + 10
    while any(each.read_text().rpartition(") ")[2][0] != "T" for each in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, "the broker does not stop"
        time.sleep(0.01)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until_stopped(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_every_202_is_in_the_topic_and_nothing_else_is(kafka: EmbeddedKafka, topic: str, tmp_path: Path) -> None:
    bodies = [
        GOOD | {"toID": number % 100 + 1, "message": f"número {number} 🔔"}
        if number % 5
        else GOOD | {"toID": [True, 2.5, "nobody", "", None][number // 5 % 5]}
        for number in range(500)
    ]
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        responses = await asyncio.gather(*(service.client.post(ONE, json=body) for body in bodies))
        metrics = (await service.client.get("/metrics")).text
    statuses = Counter(response.status_code for response in responses)
    assert statuses == {202: 400, 404: 20, 422: 80}
    stored = await read_topic(kafka.bootstrap_servers, topic)
    assert {each.id for each in stored} == {response.json()["id"] for response in responses if response.is_success}
    assert len(stored) == 400
    assert "tocsin_ingestion_accepted_total 400.0" in metrics
    assert 'tocsin_ingestion_refused_total{reason="unknown-user"} 20.0' in metrics


async def test_a_batch_stores_its_good_items_and_names_the_bad_ones(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path
) -> None:
    items = [GOOD | {"toID": number % 100 + 1} for number in range(998)] + [GOOD | {"toID": 777}, {"fromID": 1}]
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        response = await service.client.post(BATCH, json=items)
    assert response.status_code == 207
    results = response.json()["results"]
    assert [result["status"] for result in results[-2:]] == [404, 422]
    stored = await read_topic(kafka.bootstrap_servers, topic)
    assert {each.id for each in stored} == {result["id"] for result in results[:-2]}


async def test_a_recipients_notifications_are_stored_in_the_order_they_were_accepted(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        for number in range(20):
            assert (await service.client.post(ONE, json=GOOD | {"message": str(number)})).status_code == 202
        await service.client.post(BATCH, json=[GOOD | {"message": str(number)} for number in range(20, 100)])
    messages = [int(each.message) for each in await read_topic(kafka.bootstrap_servers, topic)]
    assert messages == list(range(100))


async def test_one_request_is_acknowledged_without_delay(kafka: EmbeddedKafka, topic: str, tmp_path: Path) -> None:
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        await service.client.post(ONE, json=GOOD)
        seconds = []
        for _ in range(20):
            response = await service.client.post(ONE, json=GOOD)
            seconds.append(response.elapsed.total_seconds())
    assert sorted(seconds)[10] < 0.05


async def test_a_stopped_broker_means_503_or_504_in_time_and_a_process_that_keeps_answering(
    pausable: EmbeddedKafka, pausable_topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, pausable.bootstrap_servers, pausable_topic, delivery_timeout_seconds=4) as service:
        assert (await service.client.post(ONE, json=GOOD)).status_code == 202
        with paused(pausable.pid):
            burst = [asyncio.create_task(service.client.post(ONE, json=GOOD)) for _ in range(50)]
            health: list[float] = []
            while not all(task.done() for task in burst):
                response = await service.client.get("/healthz")
                assert response.status_code == 200
                health.append(response.elapsed.total_seconds())
                assert (await service.client.get("/readyz")).status_code == 200  # a short pause is no reason
                await asyncio.sleep(0.1)
            responses = [await task for task in burst]
            late = await service.client.post(ONE, json=GOOD)
        assert max(health) < 1
        assert {response.status_code for response in [*responses, late]} <= {503, 504}
        assert all(int(response.headers["retry-after"]) > 0 for response in [*responses, late])
        assert max(response.elapsed.total_seconds() for response in [*responses, late]) < 8
        await wait_until_accepted(service, seconds=15)


async def test_while_the_oldest_send_is_stalled_new_ones_are_refused_at_once(
    pausable: EmbeddedKafka, pausable_topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, pausable.bootstrap_servers, pausable_topic, delivery_timeout_seconds=8) as service:
        assert (await service.client.post(ONE, json=GOOD)).status_code == 202
        with paused(pausable.pid):
            first = asyncio.create_task(service.client.post(ONE, json=GOOD))
            await asyncio.sleep(3.5)  # the bound under test is this long
            response = await service.client.post(ONE, json=GOOD)
            assert response.status_code == 503
            assert response.elapsed.total_seconds() < 1
        assert (await first).status_code == 202


async def test_a_pause_of_kafka_under_load_is_calm_and_loses_nothing_that_was_answered_202(
    pausable: EmbeddedKafka, pausable_topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, pausable.bootstrap_servers, pausable_topic, delivery_timeout_seconds=5) as service:
        pressure = Pressure(service.url)
        workers = [asyncio.create_task(pressure.run()) for _ in range(32)]
        await pressure.has_many.wait()
        with paused(pausable.pid):
            await pressure.is_refused.wait()
            for _ in range(4):  # the pause goes on beyond the deadline of what waits
                response = await service.client.get("/healthz")
                assert response.elapsed.total_seconds() < 1
                await asyncio.sleep(1)
        await wait_until_accepted(service, seconds=15)
        pressure.is_over = True
        await asyncio.gather(*workers)
    assert set(pressure.statuses) <= {202, 503, 504}
    assert max(pressure.seconds) < 5 + 2 + 1.5  # the deadline, the grace, and a sweep on a busy machine
    assert sorted(pressure.refused_seconds)[len(pressure.refused_seconds) // 2] < 0.2  # a refusal does not wait
    stored = {each.id for each in await read_topic(pausable.bootstrap_servers, pausable_topic)}
    assert pressure.accepted
    assert set(pressure.accepted) <= stored


class Pressure:
    """Workers that repeat at once whatever they are told, and note how long it took to be told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_over = False
        self.accepted: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.refused_seconds: list[float] = []
        self.has_many = asyncio.Event()
        self.is_refused = asyncio.Event()

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            while not self.is_over:
                response = await client.post(ONE, json=GOOD)
                elapsed_seconds = response.elapsed.total_seconds()
                self.statuses[response.status_code] += 1
                self.seconds.append(elapsed_seconds)
                if response.status_code == 202:
                    self.accepted.append(response.json()["id"])
                    if len(self.accepted) == 200:
                        self.has_many.set()
                elif response.status_code == 503:
                    assert response.headers["retry-after"]
                    self.refused_seconds.append(elapsed_seconds)
                    self.is_refused.set()
                    await asyncio.sleep(0.05)


async def wait_until_accepted(service: Service, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (response := await service.client.post(ONE, json=GOOD)).status_code != 202:
        assert response.status_code in (503, 504)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


class Load:
    """Workers that each keep a connection and send one request after another until told that the server leaves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: list[str] = []
        self.failures: list[Exception] = []
        self.has_many = asyncio.Event()
        self.refused = 0
        self.closed = 0

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=15) as client:
            while True:
                try:
                    response = await client.post(ONE, json=GOOD)
                except httpx.ConnectError:
                    self.refused += 1  # nobody listens any more: a balancer would have gone elsewhere
                    return
                except httpx.TransportError as error:
                    self.failures.append(error)
                    return
                assert response.status_code == 202
                self.accepted.append(response.json()["id"])
                if len(self.accepted) == 200:
                    self.has_many.set()
                self.closed += response.headers.get("connection") == "close"


async def test_sigterm_under_load_loses_no_accepted_notification_and_resets_no_connection(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        load = Load(service.url)
        workers = [asyncio.create_task(load.run()) for _ in range(16)]
        await load.has_many.wait()
        service.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*workers)
        assert await asyncio.to_thread(service.process.wait, 15) == 0
    assert load.failures == []
    assert load.closed == 16  # each was told, in its last answer
    stored = Counter(each.id for each in await read_topic(kafka.bootstrap_servers, topic))
    assert set(load.accepted) <= set(stored)
    assert max(stored.values()) == 1
    assert any(line["event"] == "drained" and line["undelivered"] == 0 for line in service.read_log())


async def test_sigterm_turns_readiness_off_while_requests_are_still_answered(
    kafka: EmbeddedKafka, topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, kafka.bootstrap_servers, topic) as service:
        service.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(1):
            while (ready := await service.client.get("/readyz")).status_code == 200:
                pass
        assert (ready.status_code, "draining" in ready.text) == (503, True)
        assert (await service.client.post(ONE, json=GOOD)).status_code == 202


async def test_sigterm_during_a_kafka_pause_still_answers_everybody(
    pausable: EmbeddedKafka, pausable_topic: str, tmp_path: Path
) -> None:
    async with run_ready(tmp_path, pausable.bootstrap_servers, pausable_topic, delivery_timeout_seconds=30) as service:
        assert (await service.client.post(ONE, json=GOOD)).status_code == 202
        with paused(pausable.pid):
            waiting = [asyncio.create_task(service.client.post(ONE, json=GOOD)) for _ in range(8)]
            await asyncio.sleep(0.5)  # so that they are on the wire
            service.process.send_signal(signal.SIGTERM)
            responses = await asyncio.gather(*waiting)
            assert {response.status_code for response in responses} <= {503, 504}
            assert await asyncio.to_thread(service.process.wait, 15) == 1  # some ends are unknown


async def test_a_missing_topic_is_a_503_and_the_log_tells_the_operator_what_to_do(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    # Long enough for a busy machine to learn that the topic is missing before the send's own deadline.
    config = build_config(tmp_path, kafka.bootstrap_servers, "no-such-topic", delivery_timeout_seconds=15)
    async with run_service(tmp_path, config) as service:
        response = await service.client.post(ONE, json=GOOD, headers={"traceparent": TRACE})
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert "no-such-topic" not in response.text
        await wait_for_log(service, lambda line: line.get("advice") and line.get("trace_id") == TRACE[3:35])
        ready = await service.client.get("/readyz")
        assert (ready.status_code, "no-such-topic" in ready.text) == (503, True)


async def test_a_user_without_rights_is_a_503_and_the_log_names_the_missing_right(tmp_path: Path) -> None:
    security = BrokerSecurity(plain_users={"bob": "secret-of-bob"}, is_authorizing=True)
    broker = await asyncio.to_thread(EmbeddedKafka(security=security).start)
    try:
        admin = KafkaAdmin(KafkaConnection(brokers=[broker.internal_bootstrap_servers]), client_id="test")
        await admin.create_topic("orders", partitions=1)
        await admin.close()
        config = build_config(
            tmp_path, broker.bootstrap_servers, "orders", security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN"
        )
        secrets = {"TOCSIN_KAFKA__USERNAME": "bob", "TOCSIN_KAFKA__PASSWORD": "secret-of-bob"}
        async with run_service(tmp_path, config, **secrets) as service:
            response = await service.client.post(ONE, json=GOOD, headers={"traceparent": TRACE})
            assert response.status_code == 503
            assert response.json()["type"].endswith(":kafka-refused")
            await wait_for_log(service, lambda line: line.get("advice") and line.get("trace_id") == TRACE[3:35])
            assert (await service.client.get("/readyz")).status_code == 503
            async with asyncio.timeout(15):  # librdkafka gives up for good: only a restart, with the rights, helps
                while (await service.client.get("/healthz")).status_code == 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
            again = await service.client.post(ONE, json=GOOD)
            assert again.json()["type"].endswith(":kafka-refused")
            assert again.elapsed.total_seconds() < 2
            assert "Traceback" not in service.log.read_text()
            assert "secret-of-bob" not in service.log.read_text()
    finally:
        await asyncio.to_thread(broker.stop)


async def wait_for_log(service: Service, is_it: Any, *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not any(is_it(line) for line in service.read_log()):
        assert time.monotonic() < deadline, service.log.read_text()
        await asyncio.sleep(0.1)


async def test_an_unreachable_broker_leaves_a_process_that_answers_503_and_says_why(tmp_path: Path) -> None:
    config = build_config(tmp_path, f"127.0.0.1:{free_port()}", "orders", delivery_timeout_seconds=1.5)
    async with run_service(tmp_path, config) as service:
        response = await service.client.post(ONE, json=GOOD)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert (await service.client.get("/healthz")).status_code == 200
        assert (await service.client.get("/readyz")).status_code == 503
        await wait_for_log(service, lambda line: "kafka.brokers" in str(line.get("advice")), seconds=15)


async def test_an_address_that_is_taken_ends_the_process_with_the_key_to_change(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    config = build_config(tmp_path, kafka.bootstrap_servers, "orders")
    with socket.create_server(("127.0.0.1", config["ingestion"]["port"])):
        process, log = start(tmp_path, config)
        assert await asyncio.to_thread(process.wait, 20) == 2
    assert "ingestion.port" in log.read_text()
