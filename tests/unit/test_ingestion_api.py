"""The API over a real socket, through the hot path and through the routes: one behaviour, two ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from ingestion_api import BATCH, GOOD, ONE, Running, run_api
from tocsin_core.codec import decode
from tocsin_core.errors import KafkaUnavailable, NotAuthorized
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_ingestion.problems import MEDIA_TYPE

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["hot", "routes"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with run_api(request.param) as running:
        yield running


def check_problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"].endswith(":" + name)
    assert body["title"]
    assert body["detail"]
    return body


async def test_a_notification_is_answered_202_with_its_id_and_stored(api: Running) -> None:
    response = await api.client.post(ONE, json=GOOD)
    assert response.status_code == 202
    ((key, value, _),) = api.sink.records
    assert response.json() == {"id": decode(value).id}
    assert key == b"2"


async def test_the_form_of_the_original_design_is_accepted(api: Running) -> None:
    response = await api.client.post(ONE, data={"fromID": "1", "toID": "2", "message": "hi"})
    assert response.status_code == 202


async def test_an_incoming_trace_travels_with_the_notification(api: Running) -> None:
    await api.client.post(ONE, json=GOOD, headers={"traceparent": TRACE})
    assert api.sink.records[0][2]["traceparent"] == TRACE.encode()


async def test_a_wrong_trace_is_replaced(api: Running) -> None:
    await api.client.post(ONE, json=GOOD, headers={"traceparent": "mine"})
    assert len(api.sink.records[0][2]["traceparent"]) == len(TRACE)


async def test_a_refusal_carries_the_trace_id_that_finds_it_in_the_logs(api: Running) -> None:
    response = await api.client.post(ONE, json={}, headers={"traceparent": TRACE})
    assert check_problem(response, 422, "invalid")["traceID"] == TRACE[3:35]


async def test_a_wrong_field_is_named(api: Running) -> None:
    response = await api.client.post(ONE, json=GOOD | {"toID": 2.5})
    errors = check_problem(response, 422, "invalid")["errors"]
    assert [error["field"] for error in errors] == ["toID"]


async def test_an_unknown_user_is_a_404_with_the_id(api: Running) -> None:
    body = check_problem(await api.client.post(ONE, json=GOOD | {"toID": 77}), 404, "unknown-user")
    assert body["errors"] == [{"field": "toID", "detail": "no user has the id '77'"}]


async def test_text_that_is_not_json_is_a_400(api: Running) -> None:
    response = await api.client.post(ONE, content=b"{", headers={"content-type": "application/json"})
    check_problem(response, 400, "malformed")


async def test_another_content_type_is_a_415(api: Running) -> None:
    check_problem(
        await api.client.post(ONE, content=b"hi", headers={"content-type": "text/plain"}), 415, "unsupported-media-type"
    )


async def test_a_declared_body_above_the_limit_is_a_413_and_the_connection_lives(api: Running) -> None:
    check_problem(await api.client.post(ONE, json=GOOD | {"data": {"a": "x" * MAX_BODY_BYTES}}), 413, "too-large")
    assert (await api.client.post(ONE, json=GOOD)).status_code == 202


async def test_a_chunked_body_above_the_limit_is_a_413_and_the_connection_lives(api: Running) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * (MAX_BODY_BYTES // 4)

    response = await api.client.post(ONE, content=chunks(), headers={"content-type": "application/json"})
    check_problem(response, 413, "too-large")
    assert (await api.client.post(ONE, json=GOOD)).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [("GET", ONE, 405, "method-not-allowed"), ("POST", "/v2", 404, "not-found"), ("POST", ONE + "/", 404, "not-found")],
)
async def test_a_wrong_path_or_method_is_a_problem_too(
    api: Running,
    method: str,
    path: str,
    status: int,
    name: str,
) -> None:
    check_problem(await api.client.request(method, path), status, name)


async def test_a_kafka_without_brokers_is_a_503_with_retry_after(api: Running) -> None:
    api.sink.failure = KafkaUnavailable("connect to 10.0.0.7:9092 failed")
    response = await api.client.post(ONE, json=GOOD)
    check_problem(response, 503, "kafka-unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert "10.0.0.7" not in response.text


async def test_missing_rights_are_told_to_the_log_and_not_to_the_client(
    api: Running,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api.sink.failure = NotAuthorized("topic t: denied", advice="grant WRITE on topic t to bob")
    response = await api.client.post(ONE, json=GOOD, headers={"traceparent": TRACE})
    check_problem(response, 503, "kafka-refused")
    assert "bob" not in response.text
    said = capsys.readouterr().out
    assert "grant WRITE on topic t to bob" in said
    assert TRACE[3:35] in said


async def test_a_fault_of_ours_is_a_500_problem_with_a_trace(api: Running) -> None:
    check_problem(await api.client.post(ONE, json=GOOD | {"toID": "666"}), 500, "internal")


async def test_a_closed_acceptor_answers_503_draining(api: Running) -> None:
    api.acceptor.close()
    response = await api.client.post(ONE, json=GOOD)
    check_problem(response, 503, "draining")
    assert response.headers["retry-after"]


async def test_a_repeat_with_the_same_key_gets_the_same_answer_marked_as_replay(api: Running) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await api.client.post(ONE, json=GOOD, headers=headers)
    again = await api.client.post(ONE, json=GOOD, headers=headers)
    assert (again.status_code, again.content) == (202, first.content)
    assert "idempotency-replay" not in first.headers
    assert again.headers["idempotency-replay"] == "true"
    assert len(api.sink.records) == 1


async def test_a_key_with_another_body_is_a_422(api: Running) -> None:
    headers = {"Idempotency-Key": "order-17"}
    await api.client.post(ONE, json=GOOD, headers=headers)
    response = await api.client.post(ONE, json=GOOD | {"message": "ho"}, headers=headers)
    check_problem(response, 422, "idempotency-key-reused")


async def test_a_key_in_flight_is_a_409_with_retry_after(api: Running) -> None:
    headers = {"Idempotency-Key": "order-17"}
    api.sink.is_open.clear()
    first = asyncio.create_task(api.client.post(ONE, json=GOOD, headers=headers))
    await api.sink.was_asked.wait()
    second = await api.client.post(ONE, json=GOOD, headers=headers)
    check_problem(second, 409, "idempotency-key-in-flight")
    assert second.headers["retry-after"]
    api.sink.is_open.set()
    assert (await first).status_code == 202


async def test_a_batch_of_good_items_is_a_202(api: Running) -> None:
    response = await api.client.post(BATCH, json=[GOOD, GOOD])
    assert response.status_code == 202
    ids = [result["id"] for result in response.json()["results"]]
    assert ids == [decode(value).id for _, value, _ in api.sink.records]


async def test_a_mixed_batch_is_a_207_with_a_result_per_item(api: Running) -> None:
    lines = [json.dumps(GOOD), "{oops", json.dumps(GOOD | {"toID": 77}), json.dumps(GOOD | {"x": 1}), json.dumps(GOOD)]
    response = await api.client.post(
        BATCH,
        content="\n".join(lines),
        headers={"content-type": "application/x-ndjson"},
    )
    assert response.status_code == 207
    body = response.json()
    assert (body["accepted"], body["refused"]) == (2, 3)
    assert [result["status"] for result in body["results"]] == [202, 400, 404, 422, 202]
    assert [result["index"] for result in body["results"]] == [0, 1, 2, 3, 4]
    assert body["results"][2]["problem"]["errors"][0]["field"] == "toID"


async def test_a_batch_that_met_a_full_queue_says_when_to_come_back(api: Running) -> None:
    api.sink.in_flight = 100
    response = await api.client.post(BATCH, json=[GOOD])
    assert response.status_code == 207
    assert response.headers["retry-after"] == "1"
    assert response.json()["results"][0]["problem"]["type"].endswith(":busy")


async def test_the_documentation_describes_both_routes_and_every_reference_resolves(api: Running) -> None:
    document = (await api.client.get("/openapi.json")).json()
    assert set(document["paths"]) == {ONE, BATCH}
    schemas = document["components"]["schemas"]
    referred = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert referred <= set(schemas)
    operation = document["paths"][ONE]["post"]
    assert {"202", "400", "404", "409", "413", "415", "422", "503", "504"} <= set(operation["responses"])
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/x-www-form-urlencoded"}
    assert (await api.client.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        GOOD | {"toID": "2"},
        GOOD | {"toID": True},
        GOOD | {"toID": 2.5},
        GOOD | {"title": "t"},
        GOOD | {"x": 1},
        {},
    ],
    ids=str,
)
async def test_the_documented_schema_and_the_api_agree(api: Running, body: dict[str, Any]) -> None:
    document = (await api.client.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/Draft", "components": document["components"]}
    is_valid = Draft202012Validator(schema).is_valid(body)
    assert (await api.client.post(ONE, json=body)).status_code == (202 if is_valid else 422)


async def test_a_request_in_flight_when_the_server_stops_is_answered_and_its_connection_closed(api: Running) -> None:
    api.sink.is_open.clear()
    request = asyncio.create_task(api.client.post(ONE, json=GOOD))
    await api.sink.was_asked.wait()
    api.server.should_exit = True
    while api.server.server_state.default_headers[-1] != (b"connection", b"close"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    api.sink.is_open.set()
    response = await request
    assert (response.status_code, response.headers["connection"]) == (202, "close")


async def test_an_idle_connection_may_ask_once_more_after_the_listener_closed(api: Running) -> None:
    assert (await api.client.post(ONE, json=GOOD)).status_code == 202
    api.server.should_exit = True
    while api.server.server_state.default_headers[-1] != (b"connection", b"close"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    response = await api.client.post(ONE, json=GOOD)
    assert (response.status_code, response.headers["connection"]) == (202, "close")
