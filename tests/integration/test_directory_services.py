"""The two services with users behind a real HTTP server and in a real Valkey, which come, go and come back."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from redis.asyncio import Redis

from directories import UserService, serving_users
from receiver import Receiver
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from world import World, notifications, webhook

pytestmark = pytest.mark.kafka

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "directory.yaml"
ONE, BATCH = "/v1/notifications", "/v1/notifications:batch"
TOKEN = "sesame-of-users"
# Nothing stays fresh, so every request asks; what is past its time serves while there is no answer.
FORGETFUL = {"ttl_seconds": 0.001, "unknown_ttl_seconds": 0, "stale_seconds": 600}


@pytest.fixture
async def people() -> AsyncIterator[UserService]:
    async with serving_users() as service:
        service.profiles = {str(number): {"name": f"User {number}"} for number in range(1, 51)}
        yield service


class Ingestion(NamedTuple):
    client: httpx.AsyncClient
    lines: list[dict[str, Any]]

    async def post(self, to_id: int) -> httpx.Response:
        return await self.client.post(ONE, json={"fromID": 1, "toID": to_id, "message": "hi"})

    async def wait_ready(self, status: int, words: str) -> None:
        """Return once /readyz answers so; the service looks every five seconds."""
        await wait_for_answer(self.client, "/readyz", status, words)


async def wait_for_answer(client: httpx.AsyncClient, path: str, status: int, pattern: str) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = await client.get(path)
            if answer.status_code == status and re.search(pattern, answer.text):
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def ingesting(world: World, users: Mapping[str, Any]) -> AsyncIterator[Ingestion]:
    ingestion = {"host": "127.0.0.1", "port": 0, "drain_seconds": 2}
    process = await world.spawn("ingest", [{"name": "log", "type": "Log"}], ingestion=ingestion, users=users)
    lines: list[dict[str, Any]] = []
    assert process.stdout is not None
    async for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "ingestion listening":
            break
    reading = asyncio.create_task(_keep(process.stdout, lines))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{lines[-1]['port']}", timeout=15) as client:
            yield Ingestion(client, lines)
    finally:
        process.kill()
        await process.wait()
        await reading


async def _keep(output: asyncio.StreamReader, lines: list[dict[str, Any]]) -> None:
    async for line in output:
        with suppress(ValueError):
            lines.append(json.loads(line))


async def test_ingestion_asks_a_server_survives_its_death_and_finds_it_again(
    world: World, people: UserService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_USERS__HTTP__TOKEN", TOKEN)
    users = {"http": {"url": people.url}, "cache": FORGETFUL}
    async with ingesting(world, users) as ingestion:
        await ingestion.wait_ready(200, "^ok$")
        assert (await ingestion.post(2)).status_code == 202
        unknown = await ingestion.post(77)
        assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (404, "toID")
        await people.kill()
        assert (await ingestion.post(2)).status_code == 202  # both are remembered
        for number in range(10, 20):
            answer = await ingestion.post(number)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["type"].endswith("directory-unavailable")
        await ingestion.wait_ready(200, "ok, but users.http: ")
        metrics = (await ingestion.client.get("/metrics")).text
        assert 'tocsin_directory_lookups_total{result="known"} 3.0' in metrics
        assert "tocsin_directory_breaker_state 0.0" not in metrics
        await people.start()
        await ingestion.wait_ready(200, "^ok$")
        assert (await ingestion.post(10)).status_code == 202
    stored = await world.read_topic(world.topic, 3)
    assert [record.key for record in stored].count(b"2") == 2
    assert {fields["authorization"] for _, fields in people.requests} == {f"bearer {TOKEN}"}
    assert TOKEN not in json.dumps(ingestion.lines)


async def test_ingestion_that_never_reached_its_directory_is_not_ready_and_says_why(
    world: World, people: UserService
) -> None:
    await people.kill()
    async with ingesting(world, {"http": {"url": people.url}}) as ingestion:
        await ingestion.wait_ready(503, "users.http: ")
        assert (await ingestion.post(2)).status_code == 503
        await people.start()
        await ingestion.wait_ready(200, "^ok$")
        assert (await ingestion.post(2)).status_code == 202


async def test_ingestion_reads_the_users_of_a_batch_from_redis_at_once(world: World, valkey: EmbeddedValkey) -> None:
    prefix = secrets.token_hex(4)
    redis = Redis.from_url(valkey.url)
    for number in range(1, 1_001):
        await redis.set(f"{prefix}:{number}", "{}")
    users = {"redis": {"url": valkey.url, "key_pattern": f"{prefix}:{{id}}"}, "cache": {"unknown_ttl_seconds": 60}}
    async with ingesting(world, users) as ingestion:
        await ingestion.wait_ready(200, "^ok$")
        before = (await redis.info("commandstats"))["cmdstat_mget"]["calls"]
        batch = [{"fromID": 1, "toID": number, "message": "hi"} for number in range(2, 1_002)]
        answer = await ingestion.client.post(BATCH, json=batch)
        assert [item["status"] for item in answer.json()["results"]] == [202] * 999 + [404]
        asked = (await redis.info("commandstats"))["cmdstat_mget"]["calls"] - before
        assert asked in {3, 4}  # 1,001 users, 500 a question; and one look whether it is there
        assert (await ingestion.post(2)).status_code == 202
        assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] - before <= asked + 1
    await redis.aclose()


async def test_consumers_wait_for_a_directory_that_is_down_and_lose_spend_and_bury_nothing(
    world: World, people: UserService
) -> None:
    await people.kill()
    long_ago = datetime.now(UTC) - timedelta(seconds=600)  # so long that an unknown recipient would be a dead letter
    world.produce(notifications(40, recipients=10), accepted_at=long_ago)
    with Receiver() as receiver:
        consumer = await world.start_process([webhook(receiver.url)], users={"http": {"url": people.url}})
        [line, *_] = await consumer.wait_for("recipients cannot be looked up")
        assert line["reason"].startswith("users.http: ")
        assert (receiver.deliveries, world.committed()) == ([], 0)
        [started] = await consumer.wait_for("consumer started")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{started['health_port']}") as health:
            await wait_for_answer(health, "/readyz", 200, "ok, but users.http: ")
            # The operator reads this, and adds no consumers to wait for the directory, too.
            await wait_for_answer(health, "/metrics", 200, r"(?m)^tocsin_consumer_throttled_seconds_total (?!0\.0$)")
        await people.start()
        deliveries = await receiver.wait_for(40)
        assert await consumer.terminate() == 0
    assert sorted(each.id for each in deliveries) == sorted(f"n{number}" for number in range(40))
    assert deliveries[0].data["recipient"]["name"].startswith("User ")
    assert world.committed() == 40
    assert {line["event"] for line in consumer.lines if "dead-letter" in line["event"]} == set()
    for recipient in {each.data["toID"] for each in deliveries}:
        numbers = [int(each.data["message"]) for each in deliveries if each.data["toID"] == recipient]
        assert numbers == sorted(numbers)


async def test_a_recipient_whom_the_directory_does_not_know_for_long_is_a_dead_letter_and_a_broken_profile_says_why(
    world: World, people: UserService
) -> None:
    people.profiles["2"] = {"email": 7}
    long_ago = datetime.now(UTC) - timedelta(seconds=600)
    del people.profiles["1"]
    world.produce(notifications(2, recipients=2), accepted_at=long_ago)
    with Receiver() as receiver:
        async with world.consuming([webhook(receiver.url)], users={"http": {"url": people.url}}):
            letters = await world.read_dead_letters(2)
    told = {letter.key: (letter.header("dlq-reason"), letter.header("dlq-error-message")) for letter in letters}
    assert told[b"1"] == (b"user_missing", b"no user '1' in the directory")
    assert told[b"2"][0] == b"user_missing"
    assert b"$.email" in (told[b"2"][1] or b"")
    assert receiver.deliveries == []


async def test_the_sample_runs_with_tocsin_dev_against_a_directory_of_this_machine(
    kafka: EmbeddedKafka, people: UserService, tmp_path: Path
) -> None:
    file, lines = tmp_path / "directory.yaml", tmp_path / "lines.ndjson"
    text = SAMPLE.read_text(encoding="utf-8").replace("https://users.example.org/v1/{id}", people.url)
    file.write_text(text.replace("invoices", f"dev-{secrets.token_hex(4)}"), encoding="utf-8")
    lines.write_text("".join(f'{{"fromID": 1, "toID": {number}, "message": "hi"}}\n' for number in (2, 3, 77)))
    words = ("dev", "-f", str(file), "--brokers", kafka.bootstrap_servers, "--input", str(lines))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tocsin_cli", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 3, errors.decode()
    assert b"line 3: " in errors
    assert output.count(b'"event":"notification"') + output.count(b'"event": "notification"') == 2
    assert {fields["authorization"] for _, fields in people.requests} == {"bearer change-me"}
