"""Every refusal the API can answer, as RFC 9457 problem details: one table of kinds, one error that carries a kind.

The kinds stand in one table, rather than in an exception class each, because callers never catch one of them: they
raise, and the edge renders. What a client reads never contains what Kafka or the file system said; that goes to the
log, by way of the error's cause. Types are `tag:` URIs (RFC 4151): names that promise no page behind them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tocsin_core import errors as core
from tocsin_core.errors import KafkaFailure, TocsinError

TYPE_PREFIX = "tag:tocsin.dev,2026:"
MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of refusal: its name in the type URI and in metrics, its HTTP status, its title, when to come back."""

    name: str
    status: int
    title: str
    retry_after_seconds: int | None = None


MALFORMED = Kind("malformed", 400, "The body cannot be read")
UNAUTHENTICATED = Kind("unauthenticated", 401, "Credentials are missing or wrong")
FORBIDDEN = Kind("forbidden", 403, "The credentials do not allow this")
UNKNOWN_USER = Kind("unknown-user", 404, "No such user")
NOT_FOUND = Kind("not-found", 404, "No such path")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "The path does not take this method")
BODY_TIMEOUT = Kind("body-timeout", 408, "The body did not arrive in time")
HEAD_TIMEOUT = Kind("head-timeout", 408, "The headers did not arrive in time")
KEY_IN_FLIGHT = Kind("idempotency-key-in-flight", 409, "The first request with this key is still being answered", 1)
TOO_LARGE = Kind("too-large", 413, "The body is too large")
UNSUPPORTED = Kind("unsupported-media-type", 415, "The Content-Type is not supported")
UPGRADE_REQUIRED = Kind("upgrade-required", 426, "This path speaks WebSocket")
RATE_LIMITED = Kind("rate-limited", 429, "More notifications than this caller may send", 1)
HEAD_TOO_LARGE = Kind("head-too-large", 431, "The headers are too large")
INVALID = Kind("invalid", 422, "The notification is not valid")
KEY_REUSED = Kind("idempotency-key-reused", 422, "This Idempotency-Key belongs to another notification")
RECORD_REJECTED = Kind("record-rejected", 422, "Kafka will never take this notification")
INTERNAL = Kind("internal", 500, "Tocsin failed")
BUSY = Kind("busy", 503, "Too many notifications are waiting for Kafka", 1)
KAFKA_UNAVAILABLE = Kind("kafka-unavailable", 503, "Kafka does not answer", 2)
KAFKA_REFUSED = Kind("kafka-refused", 503, "Kafka refuses this pipeline", 30)
DIRECTORY_UNAVAILABLE = Kind("directory-unavailable", 503, "The user directory cannot be read", 5)
AUTH_UNAVAILABLE = Kind("auth-unavailable", 503, "Credentials cannot be checked at present", 5)
DRAINING = Kind("draining", 503, "This instance is shutting down", 1)
OUTCOME_UNKNOWN = Kind("outcome-unknown", 504, "Kafka did not confirm in time", 2)

KINDS = tuple(value for value in tuple(globals().values()) if isinstance(value, Kind))
AUTH_KINDS = (UNAUTHENTICATED, FORBIDDEN, RATE_LIMITED, AUTH_UNAVAILABLE)
"""What only an API that asks who calls can answer."""


class FieldError(msgspec.Struct, frozen=True):
    """One field, or header, and what to write instead."""

    field: str
    detail: str


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal (RFC 9457). `errors` names the fields at fault; `traceID` finds the refusal in the logs."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    trace_id: str | None = msgspec.field(name="traceID", default=None)


class Problem(TocsinError):
    """A refusal on its way to the client, with the headers it wants. Its cause, if any, is for the log only."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.retry_after_seconds = kind.retry_after_seconds if retry_after_seconds is None else retry_after_seconds

    def build_details(self, trace_id: str | None = None) -> ProblemDetails:
        """Return what the client reads."""
        return ProblemDetails(
            type=TYPE_PREFIX + self.kind.name,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            errors=self.errors,
            trace_id=trace_id,
        )

    def describe_cause(self) -> dict[str, Any]:
        """Return what only the log may say: what Kafka or the directory said, and the advice for the operator."""
        cause = self.__cause__
        if cause is None:
            return {}
        advice = cause.advice if isinstance(cause, KafkaFailure) else ""
        return {"cause": str(cause)} | ({"advice": advice} if advice else {})


def invalid(*found: FieldError) -> Problem:
    """Return the 422 that names every field in `found`."""
    return Problem(INVALID, "; ".join(f"{each.field}: {each.detail}" for each in found), errors=found)


def internal() -> Problem:
    """Return the 500: the reason is nobody's business but the log's."""
    return Problem(INTERNAL, "The reason is in the log, under this trace id. Repeat with the same Idempotency-Key.")


_KAFKA_KINDS: dict[type[KafkaFailure], tuple[Kind, str]] = {
    core.QueueFull: (BUSY, "The local queue is full; nothing was stored. Repeat later."),
    core.KafkaUnavailable: (KAFKA_UNAVAILABLE, "No broker answered; nothing was stored. Repeat later."),
    core.NotAuthenticated: (KAFKA_REFUSED, "Nothing was stored. The pipeline's operator finds the reason in the log."),
    core.NotAuthorized: (KAFKA_REFUSED, "Nothing was stored. The pipeline's operator finds the reason in the log."),
    core.TopicMissing: (KAFKA_REFUSED, "Nothing was stored. The pipeline's operator finds the reason in the log."),
    core.RecordRejected: (RECORD_REJECTED, "The broker will never take it, most likely because it is too large."),
}


def explain_kafka_failure(failure: KafkaFailure, *, has_key: bool) -> Problem:
    """Return the refusal for a failed send. `has_key`: the client sent an Idempotency-Key and can repeat safely."""
    if isinstance(failure, core.OutcomeUnknown):
        return outcome_unknown(has_key=has_key)
    for known, (kind, detail) in _KAFKA_KINDS.items():
        if isinstance(failure, known):
            return Problem(kind, detail)
    return Problem(KAFKA_UNAVAILABLE, "Kafka failed; nothing was stored. Repeat later.")


def outcome_unknown(*, has_key: bool) -> Problem:
    """Return the 504: the notification may or may not be stored."""
    if has_key:
        advice = "Repeat the request with the same Idempotency-Key: it keeps its id."
    else:
        advice = "Repeating it may deliver it twice; send an Idempotency-Key to make repeating safe."
    return Problem(OUTCOME_UNKNOWN, f"The notification may or may not be stored. {advice}")
