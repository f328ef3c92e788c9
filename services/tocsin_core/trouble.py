"""What keeps records from coming, as readiness and the log tell it.

Two things can be in the way: the connection to the brokers, and what the group or the topic refuses. librdkafka says
each only when it begins, never when it ends, so every kind is taken back by evidence of its own: a broker that is up,
a record, an assignment, or a look at the topic. A failure that faded with time was refused: what lasts is said once.
Until a broker has answered for the first time that is trouble as well, or a rollout with a wrong password would look
ready for a moment, and the pods that work would be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tocsin_core.client_statistics import Statistics
from tocsin_core.complaints import Complaints
from tocsin_core.connection import Code, KafkaErrorLike, choose_cause, translate, translate_error
from tocsin_core.errors import KafkaFailure, NotAuthorized, TopicMissing

EVERY_SECONDS = 30.0


class Trouble:
    """The trouble of one member of a group. Written by its poll thread, read by anybody."""

    def __init__(self, say: Callable[..., Any]) -> None:
        self._complaints = Complaints(say, every_seconds=EVERY_SECONDS)
        self._connection: KafkaFailure | None = None
        self._group: KafkaFailure | None = None
        self._has_connected = False

    @property
    def current(self) -> KafkaFailure | None:
        """Return what is in the way at this moment, or None."""
        found = self._connection or self._group
        if found is None and not self._has_connected:
            return translate(Code.TRANSPORT, "no broker has answered yet")
        return found

    @property
    def is_of_the_group(self) -> bool:
        """Return whether the group or the topic refuses something."""
        return self._group is not None

    def note_connection(self, error: KafkaErrorLike) -> None:
        """Take note that a broker cannot be reached or does not accept us."""
        self._connection = choose_cause(self._connection, translate_error(error))
        self._say("Kafka cannot be reached", self._connection)

    def note_group(self, failure: KafkaFailure) -> None:
        """Take note that the group or the topic refuses something."""
        self._group = failure
        self._say("records cannot be read", failure)

    def note_statistics(self, statistics: Statistics) -> None:
        """Take back a trouble with the connection if a broker is up."""
        if statistics.is_connected:
            self._has_connected = True
            self._connection = None

    def note_progress(self) -> None:
        """Take everything back: a record or an assignment came."""
        self._has_connected = True
        self._group = None

    def note_topic_seen(self, *, is_owner: bool) -> None:
        """Take back what a topic that is there disproves; for a member with partitions, that the group is away.

        A missing right is not disproved: who may describe a topic need not be one who may read it.
        """
        self._has_connected = True
        if isinstance(self._group, TopicMissing) or (is_owner and not isinstance(self._group, NotAuthorized)):
            self._group = None

    def begin_again(self) -> None:
        """Forget what an earlier client met."""
        self._connection = self._group = None

    def _say(self, event: str, failure: KafkaFailure) -> None:
        self._complaints.about(event, str(failure), advice=failure.advice)
