"""The OpenAPI text of the two routes, built from the same structs that decode and encode them.

FastAPI would derive it from pydantic parameters; decoding with those costs ten times as much (see the routes), so the
schemas come from msgspec and are handed to FastAPI's `openapi_extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import msgspec

from tocsin_ingestion.answers import AcceptedBody, BatchBody
from tocsin_ingestion.draft import Draft
from tocsin_ingestion.media import Media
from tocsin_ingestion.problems import AUTH_KINDS, KINDS, MEDIA_TYPE, Kind, ProblemDetails
from tocsin_ingestion.validation import FORM_FIELDS, MAX_BATCH_BYTES, MAX_BATCH_ITEMS

DESCRIPTION = """\
Accepts notifications for a pipeline. A **202** means that Kafka has stored the notification on all in-sync replicas
(with `producerReturnSuccesses: false`, only that it waits to be sent: it may still be lost).
Every refusal is `application/problem+json`; **503** stored nothing and says when to repeat (`Retry-After`); **504** may
or may not have stored: repeat it with the same `Idempotency-Key`.

`Idempotency-Key` makes the notification's id stable. This release remembers keys per process, for 24 hours and at most
50,000 of them: a repeat that reaches the same process gets the same answer with `Idempotency-Replay: true`; one that
reaches another is stored again under the same id, by which consumers with a store recognise it.

A pipeline with a channel of type WebSocket also serves `GET /v1/stream?user=ID`, a **WebSocket** on which a person's
notifications arrive, one JSON text frame each: `{id, fromID, toID, message, title?, data?, channel, acceptedAt}`. Drop
what has an id and channel seen before; connect again after 1012, 1013, 4408 and a lost connection, not after others.
Where credentials are asked for, it asks too; a page offers its own as subprotocols: `tocsin` and `bearer.TOKEN`.
"""
_REFERENCE = "#/components/schemas/{name}"
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 visible ASCII characters; the same key always gives the same id",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_TRACE_PARAMETER = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C Trace Context; travels with the notification",
    "schema": {"type": "string"},
}
_ONE_KINDS = {kind for kind in KINDS if kind.name not in ("not-found", "method-not-allowed", "upgrade-required")}
_BATCH_STATUSES = {400, 408, 413, 415, 422, 500, 503}


def build_components() -> dict[str, Any]:
    """Return the named schemas that the routes refer to."""
    _, components = msgspec.json.schema_components(
        (Draft, AcceptedBody, BatchBody, ProblemDetails),
        ref_template=_REFERENCE,
    )
    return components


def describe_one(schemes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `openapi_extra` for `POST /v1/notifications`, which one of the security schemes opens."""
    draft = _refer("Draft")
    form = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in FORM_FIELDS},
        "required": ["fromID", "toID", "message"],
    }
    content = {Media.JSON.value: {"schema": draft}, Media.FORM.value: {"schema": form}}
    kinds = _ONE_KINDS if schemes else _ONE_KINDS - set(AUTH_KINDS)
    return _describe_request(content, schemes) | {
        "responses": _describe_responses("AcceptedBody", {kind.status for kind in kinds}, kinds)
    }


def describe_batch(schemes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `openapi_extra` for `POST /v1/notifications:batch`, likewise."""
    array = {"type": "array", "items": _refer("Draft"), "minItems": 1, "maxItems": MAX_BATCH_ITEMS}
    lines = {"type": "string", "description": f"one notification per line, at most {MAX_BATCH_BYTES} bytes in all"}
    content = {Media.JSON.value: {"schema": array}, Media.NDJSON.value: {"schema": lines}}
    kinds = _ONE_KINDS if schemes else _ONE_KINDS - set(AUTH_KINDS)
    responses = _describe_responses("BatchBody", _BATCH_STATUSES | ({401, 403, 429} if schemes else set()), kinds)
    responses["207"] = _describe_response("Some items were refused: each has its own status", "BatchBody")
    return _describe_request(content, schemes) | {"responses": dict(sorted(responses.items()))}


def _describe_request(content: dict[str, Any], schemes: Mapping[str, Any]) -> dict[str, Any]:
    security: dict[str, Any] = {"security": [{name: []} for name in schemes]} if schemes else {}
    return security | {
        "parameters": [_KEY_PARAMETER, _TRACE_PARAMETER],
        "requestBody": {"required": True, "content": content},
    }


def _describe_responses(accepted: str, statuses: set[int], described: set[Kind]) -> dict[str, Any]:
    responses = {"202": _describe_response("Stored in Kafka", accepted)}
    for status, kinds in groupby(sorted(KINDS, key=lambda kind: kind.status), key=lambda kind: kind.status):
        if status in statuses:
            titles = "; ".join(kind.title for kind in kinds if kind in described)
            responses[str(status)] = _describe_response(titles, "ProblemDetails", media_type=MEDIA_TYPE)
    return responses


def _describe_response(description: str, schema: str, *, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": _refer(schema)}}}


def _refer(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=name)}
