"""The errors of the core, one tree.

    TocsinError
    ├── SettingsError            a configuration value is missing, unknown or wrong; names the key and the fix
    ├── MessageError             bytes that are not a notification; what a dead letter calls `undecodable`
    ├── RetryRecordError         a record of a retry topic that no consumer of ours wrote
    └── KafkaFailure             anything the broker or the way to it refused
        ├── KafkaUnavailable     nobody answers, or too late            (retriable)
        ├── QueueFull            the local queue holds all it may       (retriable)
        ├── OutcomeUnknown       sent, but no answer before the deadline (retriable with the same id)
        ├── NotAuthenticated     wrong user, password, certificate or protocol
        ├── NotAuthorized        the user may not do this to this topic, group or cluster
        ├── TopicMissing         no such topic
        └── RecordRejected       the broker will never take this record (too large, invalid)

Every class says whether repeating can help, so that a caller never has to know librdkafka's codes.
"""

from __future__ import annotations

from typing import ClassVar


class TocsinError(Exception):
    """The root of all errors that Tocsin raises on purpose."""

    retriable: ClassVar[bool] = False


class SettingsError(TocsinError):
    """A configuration value is missing, unknown or wrong. The text names the key and what to write instead."""


class MessageError(TocsinError):
    """These bytes are not a notification."""


class RetryRecordError(TocsinError):
    """This record of a retry topic is not one that a consumer wrote. The text says what is wrong with it."""


class KafkaFailure(TocsinError):
    """Kafka, or the way to it, refused. `advice` says what an operator can do; `code` is Kafka's number, 0 if none."""

    def __init__(self, message: str, *, advice: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.advice = advice
        self.code = code


class KafkaUnavailable(KafkaFailure):
    """No broker answers, or none in time."""

    retriable = True


class QueueFull(KafkaFailure):
    """The local send queue holds all it may; nothing was enqueued."""

    retriable = True


class OutcomeUnknown(KafkaFailure):
    """The record was handed over and no answer came before the deadline: it may or may not be stored."""

    retriable = True


class NotAuthenticated(KafkaFailure):
    """The broker does not accept who we say we are, or we do not accept the broker."""


class NotAuthorized(KafkaFailure):
    """The broker knows us and says no."""


class TopicMissing(KafkaFailure):
    """The topic does not exist."""


class RecordRejected(KafkaFailure):
    """The broker will never take this record: too large or malformed."""
