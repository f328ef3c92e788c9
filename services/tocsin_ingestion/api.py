"""The HTTP routes: read, validate, accept, answer.

FastAPI documents and routes; bodies are decoded by msgspec from the raw request, because pydantic parameters cost
about ten times the CPU. No middleware: each `BaseHTTPMiddleware` would cost more than the whole of the validation.
On the real server the hot path (`protocol`) answers most requests before they come here; what it hands over, and all
that it must agree with, is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tocsin_core.codec import make_traceparent, trace_id_of
from tocsin_core.message import MAX_BODY_BYTES
from tocsin_ingestion.accept import Acceptor
from tocsin_ingestion.answers import Answer, build_accepted, build_batch, build_refusal
from tocsin_ingestion.auth.credentials import read_credentials
from tocsin_ingestion.auth.gate import GRANT, Gate, Grant
from tocsin_ingestion.body import read_body
from tocsin_ingestion.draft import Rules
from tocsin_ingestion.identity import read_key
from tocsin_ingestion.openapi import DESCRIPTION, build_components, describe_batch, describe_one
from tocsin_ingestion.problems import METHOD_NOT_ALLOWED, NOT_FOUND, Problem, internal
from tocsin_ingestion.report import Reporter
from tocsin_ingestion.validation import MAX_BATCH_BYTES, parse_batch, parse_notification

VERSION = "v1"
TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""Off: FastAPI would look for OpenTelemetry's providers on every request. Our traces travel in the records."""
_CLIENT_GONE = Answer(499, [], b"")  # nobody reads it; the number is what proxies log for it

Accept = Callable[[Request, str, Grant | None], Awaitable[Answer]]

_log = structlog.get_logger(__name__)


class DocumentedAPI(FastAPI):
    """FastAPI, whose OpenAPI text also holds what the routes refer to: msgspec schemas, and ways to say who calls."""

    security_schemes: Mapping[str, Any] = MappingProxyType({})

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, built once."""
        document = super().openapi()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(build_components())
        if self.security_schemes:
            components["securitySchemes"] = dict(self.security_schemes)
        return document


class Routes:
    """The handlers, with what they need."""

    def __init__(self, acceptor: Acceptor, rules: Rules, reporter: Reporter, gate: Gate | None = None) -> None:
        self._acceptor = acceptor
        self._rules = rules
        self._reporter = reporter
        self._gate = gate

    async def post_one(self, request: Request) -> Response:
        """Store one notification; 202 once Kafka has it."""
        return await self._respond(request, self._accept_one)

    async def post_batch(self, request: Request) -> Response:
        """Store up to 1,000 notifications; each item has its own result."""
        return await self._respond(request, self._accept_batch)

    async def _respond(self, request: Request, accept: Accept) -> Response:
        grant: Grant | None = None
        traceparent = make_traceparent(request.headers.get("traceparent"))
        trace_id = trace_id_of(traceparent)
        try:
            grant = await self._enter(request)
            if grant is not None:
                grant.claim_first()
            answer = await accept(request, traceparent, grant)
        except Problem as problem:
            self._reporter.report([problem], trace_id)
            answer = build_refusal(problem, trace_id)
        except ClientDisconnect:
            _log.debug("client left before its body was complete", trace_id=trace_id)
            answer = _CLIENT_GONE
        except Exception:  # noqa: BLE001 - the top of every request: logged with its trace id, answered as a problem
            _log.exception("request failed", trace_id=trace_id, path=request.url.path)
            answer = build_refusal(internal(), trace_id)
        return _to_response(answer, [] if grant is None else grant.build_headers())

    async def _enter(self, request: Request) -> Grant | None:
        """Return what the caller was granted: on the hot path already, if the request began there."""
        if self._gate is None:
            return None
        granted: Grant | None = request.scope.get("state", {}).get(GRANT)
        return granted or await self._gate.enter(*read_credentials(request.scope["headers"]))

    async def _accept_one(self, request: Request, traceparent: str, grant: Grant | None) -> Answer:
        del grant  # one notification was claimed before its body was read
        body = await read_body(request, self._acceptor.admission, limit=MAX_BODY_BYTES)
        key = read_key(request.headers.getlist("idempotency-key"))
        content_type = request.headers.get("content-type")
        draft = parse_notification(body, content_type, rules=self._rules, now=datetime.now(UTC))
        accepted = await self._acceptor.accept(draft, traceparent=traceparent, key=key)
        self._reporter.report([accepted], trace_id_of(traceparent))
        return build_accepted(accepted)

    async def _accept_batch(self, request: Request, traceparent: str, grant: Grant | None) -> Answer:
        body = await read_body(request, self._acceptor.admission, limit=MAX_BATCH_BYTES)
        key = read_key(request.headers.getlist("idempotency-key"))
        content_type = request.headers.get("content-type")
        drafts = parse_batch(body, content_type, rules=self._rules, now=datetime.now(UTC))
        if grant is not None:
            drafts = grant.limit(drafts)
        outcomes = await self._acceptor.accept_all(drafts, traceparent=traceparent, key=key)
        self._reporter.report(outcomes, trace_id_of(traceparent))
        return build_batch(outcomes)


def build_api(acceptor: Acceptor, rules: Rules, reporter: Reporter, gate: Gate | None = None) -> FastAPI:
    """Return the application with both routes, their documentation, and problem+json for every error."""
    schemes = {} if gate is None else gate.checker.schemes
    api = DocumentedAPI(
        title="Tocsin ingestion",
        version=VERSION,
        description=DESCRIPTION,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    api.security_schemes = schemes
    routes = Routes(acceptor, rules, reporter, gate)
    for path, handler, extra, name in (
        ("/v1/notifications", routes.post_one, describe_one(schemes), "Send a notification"),
        ("/v1/notifications:batch", routes.post_batch, describe_batch(schemes), "Send many notifications"),
    ):
        api.add_api_route(
            path,
            handler,
            methods=["POST"],
            status_code=202,
            response_class=Response,
            summary=name,
            openapi_extra=extra,
        )
    api.add_exception_handler(HTTPException, _answer_http_error)
    api.add_exception_handler(Exception, _answer_failure)
    return api


async def _answer_http_error(request: Request, error: Exception) -> Response:
    is_method = isinstance(error, HTTPException) and error.status_code == METHOD_NOT_ALLOWED.status
    kind = METHOD_NOT_ALLOWED if is_method else NOT_FOUND
    problem = Problem(kind, f"{request.method} {request.url.path}; the API is described at /docs and /openapi.json")
    response = _to_response(build_refusal(problem, None))
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _answer_failure(request: Request, error: Exception) -> Response:
    del request, error  # uvicorn logs what failed
    return _to_response(build_refusal(internal(), None))


def _to_response(answer: Answer, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return Response(answer.body, answer.status, dict([*answer.headers, *headers]))
