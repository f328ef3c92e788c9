"""Ingestion processes that ask who calls: keys that change under them, an issuer that goes away, and WebSockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from documentation import find_block
from gates import GOOD_KEY, OTHER_KEY, write_keys
from issuer import AUDIENCE, ISSUER, Issuer, build_jwk, serving, sign
from streams import SCREEN, IngestionProcess, start_ingestion
from tocsin_cli.embedded.kafka import EmbeddedKafka
from tocsin_cli.embedded.valkey import EmbeddedValkey
from world import World

# One pipeline for the whole file: its processes take seconds to start.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]
GOOD = {"fromID": 1, "toID": 2, "message": "hi"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    world = await World(kafka.bootstrap_servers, tmp_path_factory.mktemp("auth")).create()
    yield world
    await world.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    with serving(Issuer(build_jwk("ES256"))) as issuer:
        yield issuer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token_pod(world: World, valkey: EmbeddedValkey, issuer: Issuer) -> IngestionProcess:
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": issuer.url, "send_scope": "send", "leeway_seconds": 0}
    return await start_ingestion(world, valkey.url, auth={"mode": "JWT", "jwt": jwt}, log_level="debug")


@pytest_asyncio.fixture(loop_scope="module")
async def key_pod(world: World, valkey: EmbeddedValkey, tmp_path: Path) -> IngestionProcess:
    folder = write_keys(tmp_path / "keys", old=GOOD_KEY)
    limit = {"notifications_per_second": 1, "burst": 100}
    auth = {"mode": "APIKey", "keys_folder": str(folder), "rate_limit": limit}
    return await start_ingestion(world, valkey.url, auth=auth)


async def post(pod: IngestionProcess, credential: str, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {credential}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}", timeout=30) as client:
        return await client.post("/v1/notifications", json=GOOD | fields, headers=headers)


async def listen(pod: IngestionProcess, user: str, **options: Any) -> tuple[int, str]:
    """Connect, and return the code and the reason with which the service closes."""
    async with connect(pod.build_address(f"user={user}"), **options) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(30):
                await connection.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def run_script(script: str, folder: Path, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def test_a_key_is_replaced_by_another_without_a_restart(key_pod: IngestionProcess, tmp_path: Path) -> None:
    assert (await post(key_pod, GOOD_KEY)).status_code == 202
    assert (await post(key_pod, OTHER_KEY)).status_code == 401
    write_keys(tmp_path / "keys", new=OTHER_KEY)
    await key_pod.wait_for("API keys loaded", count=2)
    assert [(await post(key_pod, key)).status_code for key in (GOOD_KEY, OTHER_KEY)] == [202, 202]
    (tmp_path / "keys/old").unlink()
    await key_pod.wait_for("API keys loaded", count=3)
    assert [(await post(key_pod, key)).status_code for key in (GOOD_KEY, OTHER_KEY)] == [401, 202]
    assert GOOD_KEY not in json.dumps(key_pod.lines)


async def test_the_commands_of_the_page_send_with_a_key(key_pod: IngestionProcess, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(GOOD_KEY + "\n")
    url = f"http://127.0.0.1:{key_pod.port}"
    block = find_block("docs/ingestion.md", "--token-file key.txt").replace("http://localhost:8080", url)
    script = block.replace("tocsin send", f"tocsin send --url {url}").replace("'\n", "'; echo\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    answered, sent = (await run_script(script, tmp_path, TOCSIN_TOKEN=GOOD_KEY, PATH=path)).splitlines()
    assert json.loads(answered)["id"]
    assert len(sent) == len("00000000-0000-0000-0000-000000000000")


async def test_answers_tell_the_limit_of_this_pod(key_pod: IngestionProcess) -> None:
    answer = await post(key_pod, GOOD_KEY)
    assert answer.headers["ratelimit-limit"] == "100"
    assert int(answer.headers["ratelimit-remaining"]) == 99


async def test_a_token_posts_with_the_scope_alone_and_goes_on_when_the_issuer_is_away(
    token_pod: IngestionProcess, issuer: Issuer
) -> None:
    token = sign(scope="send")
    assert (await post(token_pod, token)).status_code == 202
    assert (await post(token_pod, sign())).status_code == 403
    assert (await post(token_pod, sign(aud="others"))).status_code == 401
    issuer.status = 500
    try:
        assert (await post(token_pod, token)).status_code == 202
        assert (await post(token_pod, sign(scope="send", jti="new"))).status_code == 202
    finally:
        issuer.status = 200
    assert token not in json.dumps(token_pod.lines)


async def test_a_pod_that_never_read_the_issuers_keys_is_not_ready_and_becomes_it(
    world: World, valkey: EmbeddedValkey
) -> None:
    with serving(Issuer(build_jwk("ES256"), status=500)) as issuer:
        jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": issuer.url}
        pod = await start_ingestion(world, valkey.url, auth={"mode": "JWT", "jwt": jwt})
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{pod.port}") as client:
            ready = await client.get("/readyz")
            assert (ready.status_code, "answered 500" in ready.text) == (503, True)
            assert (await post(pod, sign())).status_code == 503
            issuer.status = 200
            await pod.wait_for("issuer's keys loaded")
            assert (await client.get("/readyz")).status_code == 200
            assert (await post(pod, sign())).status_code == 202


async def test_a_token_listens_as_its_own_subject_alone(token_pod: IngestionProcess) -> None:
    address = token_pod.build_address("user=2")
    async with connect(address, additional_headers=bearer(sign(sub="2"))) as connection:
        await connection.ping()
    code, reason = await listen(token_pod, "3", additional_headers=bearer(sign(sub="2")))
    assert (code, "another user's" in reason) == (4403, True)
    for options in ({}, {"additional_headers": bearer("x")}, {"additional_headers": bearer(sign(exp=1))}):
        code, _ = await listen(token_pod, "2", **options)
        assert code == 4401


async def test_a_page_offers_its_token_as_a_subprotocol_and_sees_only_ours_chosen(
    token_pod: IngestionProcess,
) -> None:
    def offer(token: str) -> list[Subprotocol]:
        return [Subprotocol("tocsin"), Subprotocol(f"bearer.{token}")]

    async with connect(token_pod.build_address("user=2"), subprotocols=offer(sign())) as connection:
        assert connection.subprotocol == "tocsin"
        await connection.ping()
    assert (await listen(token_pod, "2", subprotocols=offer(sign("ES256", "b", headers={"kid": "a"}))))[0] == 4401


async def test_a_connection_ends_with_its_token(token_pod: IngestionProcess) -> None:
    token = sign(exp=int(time.time()) + 3)
    code, reason = await listen(token_pod, "2", additional_headers=bearer(token))
    assert (code, "expired" in reason) == (4401, True)


async def test_a_connection_ends_when_its_key_is_revoked_and_others_stay(
    key_pod: IngestionProcess, tmp_path: Path
) -> None:
    write_keys(tmp_path / "keys", new=OTHER_KEY)
    await key_pod.wait_for("API keys loaded", count=2)
    address = key_pod.build_address("user=2")
    async with (
        connect(address, additional_headers=bearer(GOOD_KEY)) as old,
        connect(address, additional_headers=bearer(OTHER_KEY)) as new,
    ):
        (tmp_path / "keys/old").unlink()
        async with asyncio.timeout(10):
            await old.wait_closed()
        assert (old.close_code, "revoked" in (old.close_reason or "")) == (4401, True)
        await (await new.ping())


async def test_no_credential_is_logged_at_any_level(token_pod: IngestionProcess) -> None:
    posted, shown, offered = sign(jti="1", scope="send"), sign(jti="2"), sign(jti="3")
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    assert (await post(token_pod, posted)).status_code == 202
    await listen(token_pod, "3", additional_headers=bearer(shown))
    await listen(token_pod, "3", subprotocols=[Subprotocol("tocsin"), Subprotocol(f"bearer.{offered}")])
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{token_pod.port}") as client:
        await client.post("/v1/notifications", headers={"traceparent": trace})
    await token_pod.wait_for("notification refused")
    logged = json.dumps(token_pod.lines)
    assert "ab" * 16 in logged
    assert not [token for token in (posted, shown, offered) if token in logged]


async def test_tocsin_listen_shows_its_key_from_a_file(
    world: World, valkey: EmbeddedValkey, key_pod: IngestionProcess, tmp_path: Path
) -> None:
    await world.start_process([SCREEN], redis={"url": valkey.url})
    assert (await listen(key_pod, "9"))[0] == 4401
    (tmp_path / "key").write_text(GOOD_KEY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tocsin_cli", "listen", "--user", "9", "--count", "1"),
        *("--url", f"http://127.0.0.1:{key_pod.port}", "--token-file", str(tmp_path / "key")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"connected\n"
    sent = (await post(key_pod, GOOD_KEY, toID=9)).json()["id"]
    printed, _ = await process.communicate()
    assert (process.returncode, json.loads(printed)["id"]) == (0, sent)
