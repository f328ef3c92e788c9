"""A notification between its send and its answer.

Apart from the acceptor, because those who answer know these and nothing of how notifications are sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tocsin_core.errors import KafkaFailure
from tocsin_core.outgoing import Outgoing, Stored
from tocsin_ingestion.problems import Problem, explain_kafka_failure, outcome_unknown


class Accepted(msgspec.Struct, frozen=True):
    """A notification that Kafka has. `is_replay`: it had it before this request came."""

    id: str
    is_replay: bool = False
    partition: int | None = None
    offset: int | None = None


class Sent(msgspec.Struct, frozen=True):
    """A notification on its way: `conclude` says how that ended. No record: an earlier request stored it."""

    id: str
    record: Outgoing | None
    has_key: bool


def find_records(sents: Sequence[Sent | Problem]) -> list[Outgoing]:
    """Return the records that are on their way, or were."""
    return [sent.record for sent in sents if isinstance(sent, Sent) and sent.record is not None]


def judge(sent: Sent) -> Accepted | Problem:
    """Return how a send ended, a Problem too if nobody knows yet. Raise what nobody expected."""
    if sent.record is None:
        return Accepted(sent.id, is_replay=True)
    outcome = sent.record.outcome
    if isinstance(outcome, Stored):
        return Accepted(sent.id, False, outcome.partition, outcome.offset)  # by name it costs twice as much
    if outcome is None:
        return outcome_unknown(has_key=sent.has_key)
    if not isinstance(outcome, KafkaFailure):
        raise outcome
    problem = explain_kafka_failure(outcome, has_key=sent.has_key)
    problem.__cause__ = outcome
    return problem
