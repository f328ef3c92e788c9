"""A circuit breaker: a provider or a user directory that is down is left alone until it is back. Pure.

    CLOSED ──failures in a row, or a throttle──► OPEN ──the pause is over──► HALF_OPEN ──the probe succeeds──► CLOSED
                                                  ▲                              │
                                                  └── a longer pause ◄─ it fails ┘

While it is not closed nothing of the channel starts but one probe at a time, and a failure costs no attempt: an outage
is a pause, with Kafka as the buffer, not ten thousand retries and dead letters. "In a row" means without any success,
and by at least two different notifications, because one that the provider chokes on says nothing about the others. A
throttle (429, 503 with Retry-After, SMTP 421) speaks for the whole channel and opens at once, for as long as it says.
A user directory is treated alike: there a send is a question, and what differs between two of them is the user.
Time is passed in, and so is chance.

Only what began after the breaker's last change counts: when a provider hangs, the sends in flight fail one after the
other for as long as their time-outs take, and must not be taken for probes.
A rate of failures in a window was refused: a provider that takes every second message is better retried than paused.
"""

from __future__ import annotations

from enum import Enum

from tocsin_core.retry import Backoff

FAILURES_IN_A_ROW = 5
DIFFERENT_SUBJECTS = 2
PAUSE = Backoff(first_seconds=2.0, max_seconds=60.0, max_retry_after_seconds=600.0)


class State(Enum):
    """What a breaker lets through; the values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """The breaker of one channel or directory. Every method takes the time, in seconds of a monotonic clock."""

    __slots__ = ("_changed_at", "_failed_ids", "_failures", "_openings", "_pause", "_probe", "_reopens_at")

    def __init__(self, pause: Backoff = PAUSE) -> None:
        self._pause = pause
        self._failures = 0
        self._failed_ids: set[str] = set()
        self._openings = 0
        self._reopens_at: float | None = None
        self._changed_at = float("-inf")
        self._probe: object | None = None

    def state(self, now: float) -> State:
        """Return its state; a pause that is over makes it half-open without anybody's doing."""
        if self._reopens_at is None:
            return State.CLOSED
        return State.OPEN if now < self._reopens_at else State.HALF_OPEN

    def pause_seconds(self, now: float) -> float:
        """Return how long the pause lasts yet; 0 unless open."""
        return 0.0 if self._reopens_at is None else max(0.0, self._reopens_at - now)

    def may_start(self, now: float) -> bool:
        """Return whether a delivery of the channel may start: any while closed, one at a time while half-open."""
        state = self.state(now)
        return state is State.CLOSED or (state is State.HALF_OPEN and self._probe is None)

    def begin(self, now: float, delivery: object) -> None:
        """Take note that a delivery starts; while half-open it is the probe."""
        if self.state(now) is State.HALF_OPEN:
            self._probe = delivery

    def end(self, delivery: object) -> None:
        """Take note that a delivery has stopped, whether or not it sent anything; if it was the probe, another may."""
        if self._probe is delivery:
            self._probe = None

    def note_success(self, now: float, *, began_at: float) -> bool:
        """Take note that the provider answered a send begun at `began_at`. Return whether this closed the breaker."""
        if began_at < self._changed_at:
            return False
        has_closed = self._reopens_at is not None
        self._failures, self._openings, self._reopens_at = 0, 0, None
        self._failed_ids.clear()
        if has_closed:
            self._changed_at = now
        return has_closed

    def note_failure(
        self,
        now: float,
        *,
        began_at: float,
        subject_id: str,
        is_throttled: bool,
        retry_after_seconds: float | None,
        random: float,
    ) -> bool:
        """Take note of a failure that may be the channel's. Return whether this opened the breaker, or kept it open.

        `subject_id` says what failed: the notification that was sent, or the user who was asked about.
        """
        if began_at < self._changed_at and not is_throttled:
            return False
        if self._reopens_at is None and not is_throttled and not self._is_one_too_many(subject_id):
            return False
        self._open(now, retry_after_seconds=retry_after_seconds, random=random)
        return True

    def _is_one_too_many(self, subject_id: str) -> bool:
        self._failures += 1
        if len(self._failed_ids) < DIFFERENT_SUBJECTS:
            self._failed_ids.add(subject_id)
        return self._failures >= FAILURES_IN_A_ROW and len(self._failed_ids) >= DIFFERENT_SUBJECTS

    def _open(self, now: float, *, retry_after_seconds: float | None, random: float) -> None:
        if self.state(now) is not State.OPEN:
            self._openings += 1
        pause = self._pause.delay_seconds(self._openings, random)
        if retry_after_seconds is not None:
            pause = max(pause, min(retry_after_seconds, self._pause.max_retry_after_seconds))
        self._reopens_at = max(now + pause, self._reopens_at or now)
        self._changed_at = now
