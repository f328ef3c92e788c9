"""What ingestion counts, beside what the core counts for every service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from tocsin_core.metrics import LoopCounter, registry
from tocsin_ingestion.problems import KINDS

ACCEPTED = LoopCounter("tocsin_ingestion_accepted", "Notifications answered 202 for the first time")
REPLAYED = Counter("tocsin_ingestion_replayed", "Notifications answered 202 from an earlier request", registry=registry)
STREAMS_OPEN = Gauge("tocsin_ingestion_streams_open", "WebSocket connections that are open", registry=registry)
STREAMS_CLOSED = Counter(
    "tocsin_ingestion_streams_closed", "WebSocket connections that ended, by close code", ["code"], registry=registry
)

_refused = Counter("tocsin_ingestion_refused", "Notifications refused, by reason", ["reason"], registry=registry)
# Every reason exists from the start, so that a rate over it is never missing.
REFUSED = {kind: _refused.labels(kind.name) for kind in KINDS}

AUTH_REFUSED = Counter("tocsin_ingestion_auth_refused", "Callers not let in, by reason", ["reason"], registry=registry)
KEY_USED = LoopCounter("tocsin_ingestion_key_used", "Requests let in, by name of the API key", label="key")
