"""The gate in front of the API, over real sockets and both ways: what callers read, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates import GOOD_KEY, Clock, build_gate, build_key_ring
from ingestion_api import BATCH, GOOD, ONE, Way, run_api
from issuer import Issuer, build_jwk, serving, sign
from raw_http import build_request, read_replies
from tocsin_core.metrics import registry
from tocsin_ingestion.auth.key_ring import KeyRing
from tocsin_ingestion.auth.key_set import KeySet
from tocsin_ingestion.auth.tokens import Tokens

BEARER = {"Authorization": f"Bearer {GOOD_KEY}"}
WAYS: tuple[Way, ...] = ("hot", "routes")


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return build_key_ring(tmp_path / "keys")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving(Issuer(build_jwk("ES256"))) as issuer:
        yield issuer


def tokens_of(issuer: Issuer, **settings: Any) -> Tokens:
    return Tokens(issuer.settings.model_copy(update=settings), KeySet(issuer.url))


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {sign(**claims)}"}


def count(name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("way", WAYS)
async def test_who_sends_no_credentials_is_challenged_and_nothing_is_stored(way: Way, ring: KeyRing) -> None:
    async with run_api(way, gate=build_gate(ring)) as api:
        for path, body in ((ONE, GOOD), (BATCH, [GOOD])):
            answer = await api.client.post(path, json=body)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="tocsin"')
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["type"].endswith(":unauthenticated")
            assert problem["errors"][0]["field"] == "Authorization"
            assert "tcs_" in problem["errors"][0]["detail"]
        assert not api.sink.records
        assert (await api.client.post(ONE, json=GOOD, headers=BEARER)).status_code == 202
        assert len(api.sink.records) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_refused_is_told_before_the_body_is_sent(way: Way, ring: KeyRing) -> None:
    async with run_api(way, gate=build_gate(ring)) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(build_request(b"", content_length="1000"))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert read_replies(head + b" " * 10_000)[0].status == 401


@pytest.mark.parametrize("way", WAYS)
async def test_every_answer_to_a_known_caller_tells_the_limit(way: Way, ring: KeyRing) -> None:
    clock = Clock()
    async with run_api(way, gate=build_gate(ring, burst=3, clock=clock)) as api:

        async def post(body: Any = GOOD) -> tuple[int, str, str, str | None]:
            answer = await api.client.post(ONE, json=body, headers=BEARER)
            told = answer.headers
            assert told["ratelimit-limit"] == "3"
            return answer.status_code, told["ratelimit-remaining"], told["ratelimit-reset"], told.get("retry-after")

        assert await post() == (202, "2", "1", None)
        assert await post({}) == (422, "1", "2", None)
        assert await post() == (202, "0", "3", None)
        assert await post() == (429, "0", "3", "1")
        clock.now += 1.5
        assert await post() == (202, "0", "3", None)
        assert "ratelimit-limit" not in (await api.client.post(ONE, json=GOOD)).headers


@pytest.mark.parametrize("way", WAYS)
async def test_a_batch_is_taken_as_far_as_the_limit_goes(way: Way, ring: KeyRing) -> None:
    async with run_api(way, gate=build_gate(ring, burst=3)) as api:
        answer = await api.client.post(BATCH, json=[GOOD] * 5, headers=BEARER)
        assert answer.status_code == 207
        assert [each["status"] for each in answer.json()["results"]] == [202, 202, 202, 429, 429]
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["ratelimit-remaining"] == "0"
        assert (await api.client.post(BATCH, json=[GOOD], headers=BEARER)).status_code == 429
        assert len(api.sink.records) == 3


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_waits_for_the_issuers_keys_and_is_then_let_in(way: Way, issuer: Issuer) -> None:
    async with run_api(way, gate=build_gate(tokens_of(issuer))) as api:
        for _ in range(3):
            assert (await api.client.post(ONE, json=GOOD, headers=bearer())).status_code == 202
        assert issuer.asked == 1
        issuer.keys = []
        answer = await api.client.post(ONE, json=GOOD, headers=bearer(exp=1))
        assert (answer.status_code, "has expired" in answer.json()["detail"]) == (401, True)


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_without_the_scope_may_not_post(way: Way, issuer: Issuer) -> None:
    gate = build_gate(tokens_of(issuer, send_scope="notifications:send"))
    async with run_api(way, gate=gate) as api:
        answer = await api.client.post(ONE, json=GOOD, headers=bearer(scope="read"))
        assert answer.status_code == 403
        assert 'error="insufficient_scope", scope="notifications:send"' in answer.headers["www-authenticate"]
        assert answer.json()["type"].endswith(":forbidden")
        allowed = bearer(scope="read notifications:send")
        assert (await api.client.post(ONE, json=GOOD, headers=allowed)).status_code == 202


@pytest.mark.parametrize("way", WAYS)
async def test_an_issuer_that_was_never_there_is_a_503_and_never_a_401(way: Way, issuer: Issuer) -> None:
    issuer.status = 500
    async with run_api(way, gate=build_gate(tokens_of(issuer))) as api:
        for _ in range(2):
            answer = await api.client.post(ONE, json=GOOD, headers=bearer())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["type"].endswith(":auth-unavailable")


@pytest.mark.parametrize("way", WAYS)
async def test_subjects_have_limits_of_their_own(way: Way, issuer: Issuer) -> None:
    async with run_api(way, gate=build_gate(tokens_of(issuer), burst=1)) as api:
        statuses = [
            (await api.client.post(ONE, json=GOOD, headers=bearer(sub=subject, jti=number))).status_code
            for number, subject in (("1", "a"), ("2", "b"), ("3", "a"))
        ]
    assert statuses == [202, 202, 429]


async def test_refusals_are_counted_by_reason_and_uses_by_key(ring: KeyRing) -> None:
    def look() -> list[float]:
        reasons = ("missing", "malformed", "unknown-key")
        counted = [count("tocsin_ingestion_auth_refused_total", reason=reason) for reason in reasons]
        return [*counted, count("tocsin_ingestion_key_used_total", key="billing")]

    before = look()
    async with run_api("hot", gate=build_gate(ring)) as api:
        for authorization in (None, "Basic YTpi", f"Bearer tcs_{'A' * 43}", BEARER["Authorization"]):
            headers = {} if authorization is None else {"Authorization": authorization}
            await api.client.post(ONE, json=GOOD, headers=headers)
    assert [after - then for after, then in zip(look(), before, strict=True)] == [1, 1, 1, 1]


async def test_the_description_says_how_to_authenticate_and_needs_no_credentials(ring: KeyRing, issuer: Issuer) -> None:
    for checker, schemes in ((ring, {"apiKey", "apiKeyHeader"}), (tokens_of(issuer), {"token"})):
        async with run_api("hot", gate=build_gate(checker)) as api:
            document = (await api.client.get("/openapi.json")).json()
        assert set(document["components"]["securitySchemes"]) == schemes
        for path in (ONE, BATCH):
            operation = document["paths"][path]["post"]
            assert {name for each in operation["security"] for name in each} == schemes
            assert {"401", "403", "429"} <= set(operation["responses"])


async def test_the_description_of_an_open_api_speaks_of_no_credentials() -> None:
    async with run_api("hot") as api:
        document = (await api.client.get("/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
    for path in (ONE, BATCH):
        operation = document["paths"][path]["post"]
        assert "security" not in operation
        assert not {"401", "403", "429"} & set(operation["responses"])


async def test_an_open_api_takes_whatever_credentials_are_sent() -> None:
    async with run_api("hot") as api:
        assert (await api.client.post(ONE, json=GOOD, headers={"Authorization": "Basic YTpi"})).status_code == 202
