"""Who may start: asks each channel's breaker, tells the lanes when a pause is over, and says aloud what it decides.

Lanes ask `admits` before they start anything, so a paused channel costs nothing: its deliveries stay where they are,
in their lanes or in Kafka, and no timer runs per delivery.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable

from tocsin_consumer import metrics
from tocsin_consumer.channels.base import NobodyThere, PermanentFailure, SendFailed, TemporaryFailure
from tocsin_core.breaker import Breaker, State
from tocsin_core.logging import get_logger
from tocsin_core.retry import Reason

OPENED = "a channel is paused: its provider fails"
THROTTLED = "a channel is paused: its provider asks for it"
CLOSED = "a channel goes on: its provider answers again"
ADVICE = (
    "nothing is lost and no attempt is spent: one notification at a time tries it, and the rest follows when it works"
)

_log = get_logger(__name__)


class Gate:
    """The breakers of all channels of one process. Everything here runs on the event loop."""

    def __init__(
        self,
        channels: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._breakers = {channel: Breaker() for channel in channels}
        self._held_seconds = {channel: metrics.CHANNEL_HELD_SECONDS.labels(channel) for channel in self._breakers}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed_at: dict[str, float] = {}
        self._accounted_until = clock()
        self._clock = clock
        self._draw = draw
        self.on_opened: Callable[[], None] = lambda: None
        """Called when a channel's pause is over and a probe may start."""
        for channel in self._breakers:
            self._show(channel)

    def admits(self, channel: str) -> bool:
        """Return whether a delivery of the channel may start now."""
        breaker = self._breakers.get(channel)
        return breaker is None or breaker.may_start(self._clock())

    def is_holding(self, channel: str) -> bool:
        """Return whether the channel is paused or on probation: what fails now fails for the provider's reasons."""
        breaker = self._breakers.get(channel)
        return breaker is not None and breaker.state(self._clock()) is not State.CLOSED

    def pause_seconds(self, channel: str) -> float:
        """Return how long the channel's pause lasts yet."""
        return self._breakers[channel].pause_seconds(self._clock())

    def note_start(self, channel: str, item: object) -> None:
        """Take note that a delivery starts."""
        if channel in self._breakers:
            self._breakers[channel].begin(self._clock(), item)

    def note_stop(self, channel: str, item: object) -> None:
        """Take note that a delivery has stopped, however it went."""
        if channel in self._breakers:
            self._breakers[channel].end(item)

    def note(self, channel: str, failure: SendFailed | None, *, notification_id: str, began_at: float) -> None:
        """Take note of how a send went that began at that time of the gate's clock."""
        match failure:
            case TemporaryFailure(is_of_channel=True):
                self._note_failure(channel, failure, notification_id, began_at)
            case (  # a no is an answer, too
                None
                | NobodyThere()
                | PermanentFailure(reason=Reason.PROVIDER_PERMANENT)
                | TemporaryFailure(is_of_channel=False, is_uncertain=False)
            ):
                if self._breakers[channel].note_success(self._clock(), began_at=began_at):
                    self._say_closed(channel)

    def account(self, is_waiting: Callable[[str], bool], *, is_stalled: bool = False) -> None:
        """Add the time since the last call to the throttled seconds, if a channel that has work is held back.

        `is_stalled`: what every channel needs, the user directory, holds work back. More consumers would not help then
        either, and this is how the operator is told.
        """
        now = self._clock()
        held = [channel for channel in self._breakers if self.is_holding(channel) and is_waiting(channel)]
        for channel in held:
            self._held_seconds[channel].inc(now - self._accounted_until)
        if is_stalled or held:
            metrics.THROTTLED_SECONDS.inc(now - self._accounted_until)
        self._accounted_until = now

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()

    def _note_failure(self, channel: str, failure: TemporaryFailure, notification_id: str, began_at: float) -> None:
        breaker = self._breakers[channel]
        was_closed = not self.is_holding(channel)
        is_held = breaker.note_failure(
            self._clock(),
            began_at=began_at,
            subject_id=notification_id,
            is_throttled=failure.is_throttled,
            retry_after_seconds=failure.retry_after_seconds,
            random=self._draw(),
        )
        if not is_held:
            return
        seconds = self._set_timer(channel)
        self._show(channel)
        if was_closed:
            self._closed_at[channel] = self._clock()
            event = THROTTLED if failure.is_throttled else OPENED
            _log.warning(event, channel=channel, reason=str(failure), pause_seconds=round(seconds, 1), advice=ADVICE)

    def _say_closed(self, channel: str) -> None:
        self._show(channel)
        seconds = self._clock() - self._closed_at.pop(channel, self._clock())
        _log.info(CLOSED, channel=channel, paused_seconds=round(seconds, 1))

    def _set_timer(self, channel: str) -> float:
        """Have the channel reopened when its pause is over; return in how many seconds that is."""
        seconds = self.pause_seconds(channel)
        if channel in self._timers:
            self._timers[channel].cancel()
        self._timers[channel] = asyncio.get_running_loop().call_later(seconds, self._reopen, channel)
        return seconds

    def _reopen(self, channel: str) -> None:
        if self._breakers[channel].state(self._clock()) is State.OPEN:
            self._set_timer(channel)  # uvloop counts in milliseconds, and now and then its timers are one too early
            return
        self._show(channel)
        self.on_opened()

    def _show(self, channel: str) -> None:
        metrics.BREAKER_STATE.labels(channel).set(self._breakers[channel].state(self._clock()).value)
